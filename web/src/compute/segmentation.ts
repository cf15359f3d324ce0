// SPDX-License-Identifier: Apache-2.0
/** From features and labelled pixels to the class of every pixel. */

import { positions, type Positions } from "./bilinear";
import { fitLogistic, type LinearClassifier } from "./logistic";
import type { Grid } from "./windows";

export const MAX_PIXELS = 8_000; // that are learned from; of more, so many are taken, evenly spread
const STRIP = 8_192; // pixels that are classified at once: few enough to stay in the cache

/** What the classifier sees of the pixels of a picture. */
export interface PixelFeatures {
  width: number;
  height: number;
  /** Classical features, a number for each pixel. */
  planes: Float32Array[];
  /** Deep features, a vector for each patch, which pixels see bilinearly. */
  grid: Grid;
}

export interface Segmentation {
  /** Of each pixel, one of the labels. */
  classes: Uint8Array<ArrayBuffer>;
  /** 1 less the margin between the two most probable classes, 0 to 255 for 0 to 1. */
  uncertainty: Uint8Array<ArrayBuffer>;
  /** How many pixels of each label there are. */
  counts: Map<number, number>;
}

/** A classifier of pixels that learns from labels again and again. */
export class Segmenter {
  private readonly down: Positions;
  private readonly right: Positions;
  private found?: { labels: number[]; classifier: LinearClassifier };

  constructor(private readonly features: PixelFeatures) {
    this.down = positions(features.height, features.grid.rows);
    this.right = positions(features.width, features.grid.columns);
  }

  /**
   * Learn from labels, one for each pixel, 0 where there is none, and classify all pixels.
   *
   * @throws Error fewer than two classes are marked.
   */
  segment(marks: Uint8Array): Segmentation {
    const { pixels, labels } = chosenPixels(marks);
    if (labels.length < 2) throw new Error("Mark some pixels of at least two classes.");
    const start = this.found?.labels.join() === labels.join() ? this.found.classifier : undefined;
    const targets = Uint8Array.from(pixels, (pixel) => labels.indexOf(marks[pixel]));
    const classifier = fitLogistic(this.ofPixels(pixels), targets, labels.length, start);
    this.found = { labels, classifier };
    return this.predict(classifier, labels);
  }

  /** Features of some pixels, vector after vector: classical ones first. */
  ofPixels(pixels: Uint32Array): Float32Array {
    const { width, planes, grid } = this.features;
    const channels = planes.length + grid.channels;
    const found = new Float32Array(pixels.length * channels);
    pixels.forEach((pixel, number) => {
      const target = number * channels;
      planes.forEach((plane, index) => (found[target + index] = plane[pixel]));
      const [y, x] = [Math.floor(pixel / width), pixel % width];
      const [down, right] = [this.down.share[y], this.right.share[x]];
      const { cells, corners } = this.corners(y, x, grid.channels);
      for (let k = 0; k < grid.channels; k++) {
        const [nw, ne, sw, se] = cells.map((cell) => grid.features[cell + k]);
        found[target + planes.length + k] = corners(nw, ne, sw, se, down, right);
      }
    });
    return found;
  }

  private predict({ weights, bias }: LinearClassifier, labels: number[]): Segmentation {
    const { width, height, planes, grid } = this.features;
    const size = width * height;
    const classes = new Uint8Array(size);
    const uncertainty = new Uint8Array(size);
    const counts = new Uint32Array(labels.length);
    // Logits are linear: those of patches are found first, and only they are brought to pixels.
    const patches = weights.map((of) => {
      const logits = new Float32Array(grid.rows * grid.columns);
      for (let cell = 0; cell < logits.length; cell++) {
        for (let k = 0; k < grid.channels; k++) {
          logits[cell] += of[planes.length + k] * grid.features[cell * grid.channels + k];
        }
      }
      return logits;
    });
    const rows = Math.max(Math.floor(STRIP / width), 1);
    const logits = labels.map(() => new Float32Array(rows * width));
    for (let top = 0; top < height; top += rows) {
      const bottom = Math.min(top + rows, height);
      const [begin, end] = [top * width, bottom * width];
      logits.forEach((strip, k) => {
        if (labels.length === 2 && k === 0) return; // the first of two classes has no weights: its logits are 0
        this.patchLogits(patches[k], strip, top, bottom, bias[k]);
        accumulate(strip, planes, weights[k], begin, end);
      });
      for (let pixel = begin; pixel < end; pixel++) {
        let best = 0;
        let first = logits[0][pixel - begin];
        let second = -Infinity;
        for (let k = 1; k < logits.length; k++) {
          const logit = logits[k][pixel - begin];
          if (logit > first) {
            second = first;
            first = logit;
            best = k;
          } else if (logit > second) second = logit;
        }
        const next = Math.exp(second - first);
        let total = 1 + next;
        if (logits.length > 2) {
          total = 0;
          for (const strip of logits) total += Math.exp(strip[pixel - begin] - first);
        }
        classes[pixel] = labels[best];
        uncertainty[pixel] = Math.round(255 * (1 - (1 - next) / total));
        counts[best]++;
      }
    }
    return { classes, uncertainty, counts: new Map(labels.map((label, k) => [label, counts[k]])) };
  }

  /** Logits of patches -> those of the pixels of some rows, plus the bias. */
  private patchLogits(patches: Float32Array, strip: Float32Array, top: number, bottom: number, bias: number): void {
    const { width, grid } = this.features;
    const line = new Float32Array(grid.columns);
    for (let y = top; y < bottom; y++) {
      const above = this.down.before[y] * grid.columns;
      const below = Math.min(this.down.before[y] + 1, grid.rows - 1) * grid.columns;
      const share = this.down.share[y];
      for (let column = 0; column < grid.columns; column++) {
        line[column] = patches[above + column] * (1 - share) + patches[below + column] * share + bias;
      }
      const target = (y - top) * width;
      for (let x = 0; x < width; x++) {
        const left = this.right.before[x];
        const right = Math.min(left + 1, grid.columns - 1);
        strip[target + x] = line[left] + (line[right] - line[left]) * this.right.share[x];
      }
    }
  }

  private corners(y: number, x: number, channels: number) {
    const { rows, columns } = this.features.grid;
    const [above, left] = [this.down.before[y], this.right.before[x]];
    const [below, right] = [Math.min(above + 1, rows - 1), Math.min(left + 1, columns - 1)];
    const cells = [above * columns + left, above * columns + right, below * columns + left, below * columns + right];
    const corners = (nw: number, ne: number, sw: number, se: number, down: number, across: number) =>
      (nw * (1 - across) + ne * across) * (1 - down) + (sw * (1 - across) + se * across) * down;
    return { cells: cells.map((cell) => cell * channels), corners };
  }
}

/** Weighted sum of planes onto a strip of pixels, four planes at a time so that the strip is seldom read and written. */
function accumulate(strip: Float32Array, planes: Float32Array[], weights: Float64Array, begin: number, end: number) {
  const length = end - begin;
  let index = 0;
  for (; index + 4 <= planes.length; index += 4) {
    const [a, b, c, d] = planes.slice(index, index + 4);
    const [wa, wb, wc, wd] = weights.subarray(index, index + 4);
    for (let i = 0, p = begin; i < length; i++, p++) strip[i] += wa * a[p] + wb * b[p] + wc * c[p] + wd * d[p];
  }
  for (; index < planes.length; index++) {
    const [plane, weight] = [planes[index], weights[index]];
    for (let i = 0, p = begin; i < length; i++, p++) strip[i] += weight * plane[p];
  }
}

/** The marked pixels, of more than `MAX_PIXELS` an even share of every class, at least one; and the labels, ascending. */
export function chosenPixels(marks: Uint8Array): { pixels: Uint32Array; labels: number[] } {
  const counts = new Uint32Array(256);
  for (const mark of marks) counts[mark]++;
  const labels = Array.from(counts.keys()).filter((label) => label > 0 && counts[label] > 0);
  const total = labels.reduce((sum, label) => sum + counts[label], 0);
  const share = Math.min(MAX_PIXELS / total, 1);
  const seen = new Uint32Array(256);
  const pixels: number[] = [];
  for (let pixel = 0; pixel < marks.length; pixel++) {
    const mark = marks[pixel];
    if (mark === 0) continue;
    // The n-th pixel of a class is taken where n times the share comes to a new whole number; the first one always.
    if (seen[mark] === 0 || Math.floor((seen[mark] + 1) * share) > Math.floor(seen[mark] * share)) pixels.push(pixel);
    seen[mark]++;
  }
  return { pixels: Uint32Array.from(pixels), labels };
}
