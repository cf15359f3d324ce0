// SPDX-License-Identifier: Apache-2.0
/** From the features of windows to a mask: the same strokes, the same mask as in Python. */

import { beforeAll, describe, expect, it } from "vitest";
import { classicalFeatures } from "../src/compute/classical";
import { componentColours, principalComponents, aligned } from "../src/compute/colours";
import { fitReduction, Moments } from "../src/compute/components";
import { DeepFeatures } from "../src/compute/deep";
import type { Raster } from "../src/compute/raster";
import { Segmenter, type Segmentation } from "../src/compute/segmentation";
import { PLACE, whereToDraw } from "../src/compute/uncertainty";
import { windowPixels, windowsOf, WINDOW, type Grid } from "../src/compute/windows";
import { array, difference, shape } from "./fixtures";

const AGREEMENT = 0.97; // of pixels, what the page promises

describe.each(["nickel", "nickel-crop", "superalloy"])("%s", (name) => {
  let raster: Raster;
  let grid: Grid;
  let found: Segmentation;
  const [height, width] = shape(`${name}-pixels`);

  beforeAll(() => {
    raster = { width, height, rgb: array(`${name}-pixels`) };
    const windows = array<Float32Array>(`${name}-windows`);
    const size = windows.length / shape(`${name}-windows`)[0];
    const deep = new DeepFeatures(raster, shape(`${name}-windows`)[3]);
    windowsOf(raster).forEach((_, index) => deep.add(windows.subarray(index * size, (index + 1) * size)));
    ({ components: grid } = deep.result());
    found = new Segmenter({ width, height, planes: classicalFeatures(raster), grid }).segment(array(`${name}-labels`));
  });

  it("sees the same windows", () => {
    const windows = windowsOf(raster);
    expect(windows.length).toBe(shape(`${name}-windows`)[0]);
    const pixels = windowPixels(raster, windows.at(-1)!, [0, 0, 0], [1, 1, 1]);
    const side = WINDOW * 14;
    const seen = array<Uint8Array>(`${name}-last-window`);
    const planes = Float32Array.from(
      pixels,
      (_, index) => seen[3 * (index % (side * side)) + Math.floor(index / (side * side))] / 255,
    );
    expect(difference(pixels, planes)).toBeLessThan(1e-6);
  });

  it("has the same deep features, but for the sign of components", () => {
    const expected = array<Float32Array>(`${name}-grid`);
    expect([grid.rows, grid.columns, grid.channels]).toEqual(shape(`${name}-grid`));
    for (let k = 0; k < grid.channels; k++) {
      const cells = Array.from({ length: grid.rows * grid.columns }, (_, cell) => cell * grid.channels + k);
      const sign = Math.sign(cells.reduce((sum, index) => sum + grid.features[index] * expected[index], 0));
      // Standard scores; float32 features, and components of nearly equal variance turn into each other.
      expect(
        difference(
          cells.map((index) => sign * grid.features[index]),
          cells.map((index) => expected[index]),
        ),
      ).toBeLessThan(0.02);
    }
  });

  it("has the same mask", () => {
    const expected = array<Uint8Array>(`${name}-classes`);
    const same = found.classes.reduce((count, label, index) => count + (label === expected[index] ? 1 : 0), 0);
    console.log(`${name}: the masks agree in ${((100 * same) / expected.length).toFixed(3)} % of pixels`);
    expect(same / expected.length).toBeGreaterThan(AGREEMENT);
    expect([...found.counts.values()].reduce((sum, count) => sum + count)).toBe(width * height);
  });

  it("is as uncertain", () => {
    const expected = array<Float32Array>(`${name}-uncertainty`);
    const mean =
      found.uncertainty.reduce((sum, value, index) => sum + Math.abs(value / 255 - expected[index]), 0) /
      expected.length;
    // The page learns from fewer pixels of thick strokes, and goes on until the loss is nearer to its minimum.
    expect(mean).toBeLessThan(0.02);
    const [first] = whereToDraw(found.uncertainty, array(`${name}-labels`), width);
    // Places of nearly the same uncertainty may change ranks: what counts is how uncertain Python is there.
    const [row, column] = array<Float32Array>(`${name}-places`);
    expect(meanAround(expected, width, first.row, first.column)).toBeGreaterThan(
      meanAround(expected, width, row, column) - 0.05,
    );
  });

  it("learns anew when a class comes or goes", () => {
    const segmenter = new Segmenter({ width, height, planes: classicalFeatures(raster), grid });
    const labels = array<Uint8Array>(`${name}-labels`).slice();
    expect(() => segmenter.segment(labels.map((label) => (label === 1 ? 1 : 0)))).toThrow(/two classes/);
    segmenter.segment(labels);
    const renamed = segmenter.segment(labels.map((label) => (label ? label + 4 : 0)));
    expect([...renamed.counts.keys()]).toEqual([...found.counts.keys()].map((label) => label + 4));
    expect(
      difference(
        renamed.classes,
        found.classes.map((label) => label + 4),
      ),
    ).toBe(0);
  });
});

/** Mean over the square that a place is the middle of. */
function meanAround(values: Float32Array, width: number, row: number, column: number): number {
  let sum = 0;
  for (let y = row - PLACE / 2; y < row + PLACE / 2; y++) {
    for (let x = column - PLACE / 2; x < column + PLACE / 2; x++) sum += values[y * width + x];
  }
  return sum / PLACE ** 2;
}

describe("colours of features", () => {
  it("are those of Python, but for order and sign", () => {
    const features = array<Float32Array>("superalloy-windows");
    const components = principalComponents({ rows: 37, columns: 37, channels: 384, features });
    const expected = array<Uint8Array>("superalloy-colours");
    const reference = { rows: 37, columns: 37, channels: 3, features: Float32Array.from(expected) };
    const colours = componentColours(aligned(components, reference));
    const rgb = colours.filter((_, index) => index % 4 < 3);
    expect(difference(rgb, expected)).toBeLessThanOrEqual(2);
  });

  it("follow the order and the signs of a reference", () => {
    const features = Float32Array.from({ length: 75 }, (_, index) => Math.sin(index * index));
    const reference = { rows: 5, columns: 5, channels: 3, features };
    const turned = features.map((_, index) => -features[index - (index % 3) + ((index + 1) % 3)]);
    expect(difference(aligned({ ...reference, features: turned }, reference).features, features)).toBeLessThan(1e-6);
  });
});

describe("principal components", () => {
  it("are refused if there are fewer channels", () => {
    const moments = new Moments(2);
    moments.add(Float32Array.from([1, 2, 3, 4, 5, 7]));
    expect(() => fitReduction(moments, 3, true)).toThrow(/2 channels/);
  });
});
