// SPDX-License-Identifier: Apache-2.0
/** The shipped micrographs, and the features that other models have of them. */

import type { Grid } from "../compute/windows";

export interface Precomputed {
  model: string;
  grid: Grid;
}

/** `examples/index.json`: what there is, and how `make_examples.py` wrote it. */
export interface Example {
  name: string;
  title: string;
  image: string;
  models: { model: string; file: string; rows: number; columns: number; scales: number[] }[];
}

export async function examples(): Promise<Example[]> {
  return (await get("examples/index.json")).json();
}

/** A micrograph as a file, and features of other models: 8-bit numbers, each channel times its scale. */
export async function openExample(base: string, name: string): Promise<{ file: File; precomputed: Precomputed[] }> {
  const at = (file: string) => new URL(`examples/${file}`, base).href;
  const all = (await (await get(at("index.json"))).json()) as Example[];
  const example = all.find((one) => one.name === name)!;
  const file = new File([await (await get(at(example.image))).blob()], example.image, { type: "image/png" });
  const precomputed = example.models.map(async ({ model, file, rows, columns, scales }) => {
    const numbers = new Int8Array(await (await get(at(file))).arrayBuffer());
    const features = Float32Array.from(numbers, (value, index) => value * scales[index % scales.length]);
    return { model, grid: { rows, columns, channels: scales.length, features } };
  });
  return { file, precomputed: await Promise.all(precomputed) };
}

async function get(address: string): Promise<Response> {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} cannot be fetched (${answer.status}). Load the page anew.`);
  return answer;
}
