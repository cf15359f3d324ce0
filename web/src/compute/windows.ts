// SPDX-License-Identifier: Apache-2.0
/**
 * Dense features of a picture of any size: windows that overlap -> model -> one grid of patches, as `DeepFeatures` of
 * `alibi_dinov2/features/deep_features.py`. The model always sees windows of the same size, because the ALiBi bias
 * depends on the size of the grid: a small picture is mirrored out to a window.
 */

import { mirrored, type Raster } from "./raster";

export const PATCH = 14; // pixels, side
export const WINDOW = 37; // patches, side: 518 pixels, what the model was trained at
export const OVERLAP = 8; // patches that neighbouring windows share

/** Features of patches, row by row, `channels` numbers for each. */
export interface Grid {
  rows: number;
  columns: number;
  channels: number;
  features: Float32Array;
}

export interface Window {
  row: number;
  column: number;
}

/** Where windows begin along an axis of `length` patches, so that they cover it; one that reaches beyond a short one. */
export function windowStarts(length: number): number[] {
  const last = Math.max(length - WINDOW, 0);
  const starts = [];
  for (let start = 0; start < last; start += WINDOW - OVERLAP) starts.push(start);
  return [...starts, last];
}

/** The windows of a picture, their row and column in patches. */
export function windowsOf({ width, height }: { width: number; height: number }): Window[] {
  const rows = windowStarts(Math.ceil(height / PATCH));
  const columns = windowStarts(Math.ceil(width / PATCH));
  return rows.flatMap((row) => columns.map((column) => ({ row, column })));
}

/** The pixels of a window as the model wants them: normalised, channels first, `3 · side · side` float32. */
export function windowPixels(raster: Raster, { row, column }: Window, mean: number[], std: number[]): Float32Array {
  const side = WINDOW * PATCH;
  const pixels = new Float32Array(3 * side * side);
  // One operation on each of 256 levels rather than on each pixel.
  const tables = mean.map((value, channel) =>
    Float32Array.from({ length: 256 }, (_, level) => (level / 255 - value) / std[channel]),
  );
  for (let y = 0; y < side; y++) {
    const source = mirrored(row * PATCH + y, raster.height) * raster.width;
    for (let x = 0; x < side; x++) {
      const pixel = 3 * (source + mirrored(column * PATCH + x, raster.width));
      for (let channel = 0; channel < 3; channel++) {
        pixels[(channel * side + y) * side + x] = tables[channel][raster.rgb[pixel + channel]];
      }
    }
  }
  return pixels;
}

/** Adds up the features of windows, those of patches near a window's end counting less, to one grid. */
export class Blend {
  private readonly total: Grid;
  private readonly weights: Float32Array;

  /** @param picture whose windows are added; they may reach beyond a small one, and the grid then does, too. */
  constructor(picture: { width: number; height: number }, channels: number) {
    const [rows, columns] = [picture.height, picture.width].map((side) => Math.max(Math.ceil(side / PATCH), WINDOW));
    this.total = { rows, columns, channels, features: new Float32Array(rows * columns * channels) };
    this.weights = new Float32Array(rows * columns);
  }

  add({ row, column }: Window, features: Float32Array): void {
    const { columns, channels, features: total } = this.total;
    const fade = (cell: number) => Math.min((Math.min(cell, WINDOW - 1 - cell) + 1) / (OVERLAP + 1), 1);
    for (let y = 0; y < WINDOW; y++) {
      for (let x = 0; x < WINDOW; x++) {
        const weight = fade(y) * fade(x);
        const cell = (row + y) * columns + column + x;
        const source = (y * WINDOW + x) * channels;
        this.weights[cell] += weight;
        for (let k = 0; k < channels; k++) total[cell * channels + k] += weight * features[source + k];
      }
    }
  }

  /** The grid, once all windows were added. */
  grid(): Grid {
    const { channels } = this.total;
    const features = this.total.features.map((value, index) => value / this.weights[Math.floor(index / channels)]);
    return { ...this.total, features };
  }
}

/** The patches of a grid that lie in a picture. */
export function cropped(grid: Grid, picture: { width: number; height: number }): Grid {
  const rows = Math.min(grid.rows, Math.ceil(picture.height / PATCH));
  const columns = Math.min(grid.columns, Math.ceil(picture.width / PATCH));
  const features = new Float32Array(rows * columns * grid.channels);
  for (let row = 0; row < rows; row++) {
    const start = row * grid.columns * grid.channels;
    features.set(grid.features.subarray(start, start + columns * grid.channels), row * columns * grid.channels);
  }
  return { rows, columns, channels: grid.channels, features };
}
