// SPDX-License-Identifier: Apache-2.0
/** The page computes what the Python package does. */

import { describe, expect, it } from "vitest";
import { classicalFeatures, PLANES_PER_CHANNEL } from "../src/compute/classical";
import { findContrast, greyLevels } from "../src/compute/contrast";
import { fitLogistic } from "../src/compute/logistic";
import { enlarge, hasColour, mirrored, reduceLabels, shrink } from "../src/compute/raster";
import { chosenPixels, MAX_PIXELS } from "../src/compute/segmentation";
import { windowStarts } from "../src/compute/windows";
import { array, difference, names, shape } from "./fixtures";

describe("contrast", () => {
  const cases = names.filter((name) => name.startsWith("contrast-") && name.endsWith("-values"));

  it.each(cases)("gives the grey levels of Python for %s", (name) => {
    const values = array(name);
    const found = greyLevels(values, findContrast(values, 8 * values.BYTES_PER_ELEMENT));
    expect(difference(found, array(name.replace("values", "levels")))).toBe(0);
  });

  it("knows the cases", () => expect(cases.length).toBeGreaterThan(6));

  it("leaves out NaN and infinite values", () => {
    const values = Float32Array.from([NaN, Infinity, -Infinity, ...Array.from({ length: 100 }, (_, index) => index)]);
    const contrast = findContrast(values, 32);
    expect(contrast).toMatchObject({ low: 0, high: 99 });
    expect([...greyLevels(values, contrast).slice(0, 3)]).toEqual([0, 255, 0]);
  });

  it("refuses values that would all look the same", () => {
    const values = Float64Array.from({ length: 64 }, (_, index) => 10 ** index);
    expect(() => findContrast(values, 64)).toThrow(/64 different values/);
  });
});

describe("classical features", () => {
  it.each(["grey", "colour"])("are those of Python, %s", (kind) => {
    const [height, width] = shape(`classical-${kind}-pixels`);
    const planes = classicalFeatures({ width, height, rgb: array(`classical-${kind}-pixels`) });
    const [count] = shape(`classical-${kind}-features`);
    expect(planes.length).toBe(count);
    expect(count).toBe(PLANES_PER_CHANNEL * (kind === "grey" ? 1 : 3));
    const expected = array<Float32Array>(`classical-${kind}-features`);
    // float32 at intensities of up to 1, of which second differences are taken.
    planes.forEach((plane, index) => {
      expect(difference(plane, expected.subarray(index * width * height, (index + 1) * width * height))).toBeLessThan(
        2e-6,
      );
    });
  });
});

describe("logistic regression", () => {
  it.each([2, 3])("finds what scikit-learn finds, %i classes", (classes) => {
    const features = array<Float32Array>(`logistic-${classes}-features`);
    const targets = array<Uint8Array>(`logistic-${classes}-targets`);
    const found = fitLogistic(features, targets, classes);
    // scikit-learn stops at a gradient of 1e-4, which leaves probabilities a few thousandths away from the minimum.
    expect(difference(probabilities(found, features), array(`logistic-${classes}-probabilities`))).toBeLessThan(0.01);
    const again = fitLogistic(features, targets, classes, found);
    expect(difference(probabilities(again, features), probabilities(found, features))).toBeLessThan(1e-3);
  });

  it("is not disturbed by a feature that never varies", () => {
    const features = Float32Array.from({ length: 40 }, (_, index) => (index % 2 ? 5 : index));
    const { weights, bias } = fitLogistic(
      features,
      Uint8Array.from({ length: 20 }, (_, i) => (i < 10 ? 0 : 1)),
      2,
    );
    expect([...weights.flatMap((of) => [...of]), ...bias].every(Number.isFinite)).toBe(true);
    expect(weights[1][1]).toBe(0);
  });
});

function probabilities({ weights, bias }: ReturnType<typeof fitLogistic>, features: Float32Array): number[] {
  const channels = weights[0].length;
  const found: number[] = [];
  for (let start = 0; start < features.length; start += channels) {
    const logits = weights.map((of, k) => of.reduce((sum, weight, j) => sum + weight * features[start + j], bias[k]));
    const shares = logits.map((logit) => Math.exp(logit - Math.max(...logits)));
    const total = shares.reduce((sum, share) => sum + share);
    found.push(...shares.map((share) => share / total));
  }
  return found;
}

describe("rasters", () => {
  it("mirror at their borders, the borders' pixels twice", () => {
    expect([-4, -3, -2, -1, 0, 1, 2, 3, 4, 5].map((place) => mirrored(place, 3))).toEqual([
      2, 2, 1, 0, 0, 1, 2, 2, 1, 0,
    ]);
  });

  it("shrink to means of whole squares", () => {
    const rgb = Uint8Array.from([0, 2, 4, 6, 90].flatMap((value) => [value, value, value + 1]));
    const small = shrink({ width: 5, height: 1, rgb }, 1);
    expect(small.width).toBe(5);
    const two = shrink({ width: 5, height: 2, rgb: Uint8Array.from([...rgb, ...rgb]) }, 2);
    expect([two.width, two.height, ...two.rgb]).toEqual([2, 1, 1, 1, 2, 5, 5, 6]);
    expect(hasColour(two)).toBe(true);
  });

  it.each([
    [7, 5, 2],
    [9, 9, 3],
    [4, 4, 1],
  ])("take labels of %i × %i pixels there and back with a step of %i", (width, height, step) => {
    const [w, h] = [Math.floor(width / step), Math.floor(height / step)];
    const small = Uint8Array.from({ length: w * h }, (_, index) => index);
    const large = enlarge(small, w, step, width, height);
    expect(large.length).toBe(width * height);
    expect([...reduceLabels(large, width, w, h, step)]).toEqual([...small]);
  });
});

describe("windows", () => {
  it.each([
    [20, [0]],
    [37, [0]],
    [38, [0, 1]],
    [66, [0, 29]],
    [67, [0, 29, 30]],
  ])("of an axis of %i patches begin at %j", (length, starts) => expect(windowStarts(length)).toEqual(starts));
});

describe("marked pixels", () => {
  it("are taken evenly if there are many, and the first of a rare class always", () => {
    const marks = new Uint8Array(100_000).fill(1);
    marks[77_777] = 9;
    const { pixels, labels } = chosenPixels(marks);
    expect(labels).toEqual([1, 9]);
    expect(pixels).toContain(77_777);
    expect(Math.abs(pixels.length - MAX_PIXELS)).toBeLessThan(3);
    expect(chosenPixels(marks.slice(0, 100)).pixels.length).toBe(100);
  });
});
