// SPDX-License-Identifier: Apache-2.0
/** Arrays that `make_fixtures.py` wrote. */

import { readFileSync } from "node:fs";
import type { Values } from "../src/compute/contrast";

const FOLDER = new URL("fixtures/", import.meta.url);
const TYPES = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  float32: Float32Array,
};

interface Facts {
  dtype: keyof typeof TYPES;
  shape: number[];
}

const facts = JSON.parse(readFileSync(new URL("arrays.json", FOLDER), "utf8")) as Record<string, Facts>;

export const names = Object.keys(facts);

export function shape(name: string): number[] {
  return facts[name].shape;
}

export function array<T extends Values>(name: string): T {
  const bytes = readFileSync(new URL(`${name}.bin`, FOLDER));
  return new TYPES[facts[name].dtype](
    bytes.buffer,
    bytes.byteOffset,
    bytes.length / TYPES[facts[name].dtype].BYTES_PER_ELEMENT,
  ) as T;
}

/** The largest difference between two arrays. */
export function difference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`${a.length} and ${b.length} numbers are compared.`);
  let most = 0;
  for (let index = 0; index < a.length; index++) {
    const found = Math.abs(a[index] - b[index]);
    if (!(found <= most)) most = found; // NaN counts, too
  }
  return most;
}
