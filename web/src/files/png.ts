// SPDX-License-Identifier: Apache-2.0
/** PNG files with the values that are in them: a canvas would leave out the lower 8 bits of 16, and palette indices. */

import { decode, encode } from "fast-png";
import { requireSize, type ImageFile } from "./stored";

export function isPng(bytes: Uint8Array): boolean {
  return [0x89, 0x50, 0x4e, 0x47].every((byte, index) => bytes[index] === byte);
}

export function openPng(bytes: Uint8Array): ImageFile {
  const header = new DataView(bytes.buffer, bytes.byteOffset);
  if (bytes.length < 33) throw new Error("it ends within its header");
  requireSize(header.getUint32(16), header.getUint32(20), 4);
  const { width, height, depth, channels, data, palette, transparency } = decode(bytes, { checkCrc: true });
  if (data.length !== width * height * channels && depth >= 8) throw new Error("it ends before its pixels do");
  const values =
    depth < 8
      ? unpacked(data as Uint8Array, width, height, depth)
      : new (depth === 16 ? Uint16Array : Uint8Array)(data);
  const opacities =
    palette && transparency
      ? palette.map((colour, index) => [...colour.slice(0, 3), transparency[index] ?? 255])
      : palette;
  const stored = {
    width,
    height,
    samples: channels,
    values,
    bits: depth,
    palette: opacities,
    opacity: channels === 2 || channels === 4 ? channels - 1 : undefined,
  };
  return { slices: 1, read: async () => stored };
}

/** A PNG of 8-bit numbers, such as labels or a mask; or of RGB with `channels` 3. */
export function writePng(data: Uint8Array, width: number, height: number, channels = 1): Uint8Array<ArrayBuffer> {
  return new Uint8Array(encode({ width, height, data, depth: 8, channels }));
}

/** Several values a byte, rows beginning at whole bytes -> a value a byte. */
function unpacked(data: Uint8Array, width: number, height: number, depth: number): Uint8Array {
  if (data.length === width * height) return data;
  const stride = Math.ceil((width * depth) / 8);
  const values = new Uint8Array(width * height);
  const mask = 2 ** depth - 1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const bit = x * depth;
      values[y * width + x] = (data[y * stride + (bit >> 3)] >> (8 - depth - (bit & 7))) & mask;
    }
  }
  return values;
}
