// SPDX-License-Identifier: Apache-2.0
/** What a file holds, before it is known whether it is a picture to be seen or labels of one. */

import { findContrast, greyLevels, type Contrast, type Values } from "../compute/contrast";
import type { Raster } from "../compute/raster";

/** Values as they are in a file, `samples` for each pixel, row by row. */
export interface Stored {
  width: number;
  height: number;
  samples: number;
  values: Values;
  /** That unsigned values use. */
  bits: number;
  /** Colours of the values, three or four numbers from 0 to 255 each. */
  palette?: number[][];
  /** Number of the sample that tells how opaque a pixel is. */
  opacity?: number;
  whiteIsZero?: boolean;
  /** Name of a format that changes values. */
  lossy?: string;
}

/** A file that was opened; pages of one size are slices of a stack. */
export interface ImageFile {
  slices: number;
  read(index: number): Promise<Stored>;
}

const LARGEST = 2 ** 28; // values: half a gigabyte of 16 bits

/** Raise an error before memory is asked for that a page does not get. */
export function requireSize(width: number, height: number, samples: number): void {
  if (width * height * samples > LARGEST) {
    throw new Error(`it has ${width} × ${height} pixels, more than a page can hold; cut it or make it smaller`);
  }
}

/**
 * The picture that is seen, and what was done that its user should know.
 *
 * @throws Error too few grey levels would be left.
 */
export function seen(stored: Stored): { raster: Raster; notes: string[] } {
  const { width, height, samples, palette, opacity } = stored;
  const notes: string[] = [];
  const count = width * height;
  if (palette) return { raster: { width, height, rgb: paletteColours(stored, palette) }, notes };
  const coloured = samples - (opacity === undefined ? 0 : 1) >= 3;
  const channels = coloured ? 3 : 1;
  const unseen = samples - channels - (opacity === undefined ? 0 : 1);
  if (unseen > 0)
    notes.push(`${coloured ? "Three" : "The first"} of its ${samples} channels ${coloured ? "are" : "is"} seen.`);
  const values = channels === samples ? stored.values : picked(stored, channels);
  const lost = nonfinite(values);
  if (lost > 0) notes.push(`${lost} values are NaN or infinite; they are seen black or white.`);
  const contrast = findContrast(values, stored.bits);
  notes.push(...describe(contrast, stored));
  const levels = greyLevels(values, contrast);
  const rgb = new Uint8Array(3 * count);
  for (let index = 0; index < rgb.length; index++) {
    const level = coloured ? levels[index] : levels[Math.floor(index / 3)];
    rgb[index] = stored.whiteIsZero ? 255 - level : level;
  }
  if (opacity !== undefined) {
    const most =
      stored.values instanceof Float32Array || stored.values instanceof Float64Array ? 1 : 2 ** stored.bits - 1;
    for (let index = 0; index < rgb.length; index++) {
      const share = Math.min(stored.values[Math.floor(index / 3) * samples + opacity] / most, 1);
      rgb[index] = Math.round(share * rgb[index] + (1 - share) * 255);
    }
  }
  return { raster: { width, height, rgb }, notes };
}

/**
 * Labels of pixels, 0 for none: of a palette image its indices, of equal channels one of them.
 *
 * @throws Error it has colours, fractions or other values than 0 to 255, or a format that changes values.
 */
export function labels(stored: Stored): Uint8Array<ArrayBuffer> {
  const { width, height, samples, values, opacity, lossy } = stored;
  if (lossy) throw new Error(`${lossy} changes values; save labels as PNG or TIFF`);
  const colours = samples - (opacity === undefined ? 0 : 1);
  const found = new Uint8Array(width * height);
  for (let pixel = 0; pixel < found.length; pixel++) {
    const value = values[pixel * samples];
    for (let sample = 1; sample < colours; sample++) {
      if (values[pixel * samples + sample] !== value) {
        throw new Error("it has colours; labels are one number for each pixel, 0 for unlabelled");
      }
    }
    if (!(value >= 0 && value <= 255 && Number.isInteger(value))) {
      throw new Error(`it has the value ${value}; 0 is unlabelled, classes are whole numbers from 1 to 255`);
    }
    found[pixel] = value;
  }
  return found;
}

function describe({ low, high, tail }: Contrast, { bits, values }: Stored): string[] {
  if (low === high) return ["All of its values are equal; it is black."];
  if (values instanceof Uint8Array && bits <= 8) return [];
  const number = (value: number) => Number(value.toPrecision(6)).toString();
  const beyond = tail ? `, ${tail} % of the values below and above` : "";
  return [`Contrast: ${number(low)} to ${number(high)} from black to white${beyond}.`];
}

function paletteColours({ values }: Stored, palette: number[][]): Uint8Array {
  const rgb = new Uint8Array(3 * values.length);
  for (let pixel = 0; pixel < values.length; pixel++) {
    const colour = palette[Math.min(values[pixel], palette.length - 1)];
    const share = (colour[3] ?? 255) / 255;
    for (let k = 0; k < 3; k++) rgb[3 * pixel + k] = Math.round(share * colour[k] + (1 - share) * 255);
  }
  return rgb;
}

/** The first channels of each pixel. */
function picked({ values, samples, width, height }: Stored, channels: number): Values {
  const result = new (values.constructor as new (length: number) => Values)(width * height * channels);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let k = 0; k < channels; k++) result[pixel * channels + k] = values[pixel * samples + k];
  }
  return result;
}

function nonfinite(values: Values): number {
  if (!(values instanceof Float32Array || values instanceof Float64Array)) return 0;
  let count = 0;
  for (const value of values) if (!Number.isFinite(value)) count++;
  return count;
}
