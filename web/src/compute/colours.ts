// SPDX-License-Identifier: Apache-2.0
/** Features as colours: `alibi_dinov2/pictures/feature_colours.py` and `colours.py`. */

import { fitReduction, Moments, reduced } from "./components";
import type { Grid } from "./windows";

const TRIMMED = 1; // per cent at either end: a few outlying patches would else take all the contrast
const LEAST_RANGE = 1e-3; // rounding errors are not drawn in full contrast

// Of Okabe and Ito: they can be told apart with any kind of colour vision.
const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442"];

// matplotlib's viridis at nine even steps, between which it is blended.
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];

/** The colour of a class as `#rrggbb`: Okabe and Ito's for 1 to 7, VOC's for those above. */
export function classColour(label: number): string {
  if (label <= OKABE_ITO.length) return OKABE_ITO[label - 1];
  const channels = [0, 0, 0];
  for (let bit = 0; bit < 8; bit++) channels[bit % 3] |= ((label >> bit) & 1) << (7 - Math.floor(bit / 3));
  return "#" + channels.map((value) => value.toString(16).padStart(2, "0")).join("");
}

/** `#rrggbb` -> three numbers, 0 to 255. */
export function channelsOf(colour: string): [number, number, number] {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** The first three principal components of a grid's patches, of variance 1 each. */
export function principalComponents(grid: Grid): Grid {
  const moments = new Moments(grid.channels);
  moments.add(grid.features);
  const reduction = fitReduction(moments, 3, false);
  const components = reduced(grid, reduction);
  components.features.forEach((value, index) => {
    const deviation = reduction.deviations[index % 3];
    components.features[index] = deviation > 0 ? value / deviation : 0;
  });
  return components;
}

/** Components reordered, some with the sign changed, to be like those of another model of the same picture. */
export function aligned(components: Grid, reference: Grid): Grid {
  if (components.rows !== reference.rows || components.columns !== reference.columns) return components;
  const free = [0, 1, 2];
  const chosen = [0, 1, 2].map((wanted) => {
    const like = (index: number) => correlation(components.features, index, reference.features, wanted);
    const best = free.reduce((found, index) => (Math.abs(like(index)) > Math.abs(like(found)) ? index : found));
    free.splice(free.indexOf(best), 1);
    return { index: best, sign: like(best) < 0 ? -1 : 1 };
  });
  const features = components.features.map((_, index) => {
    const { index: source, sign } = chosen[index % 3];
    return sign * components.features[index - (index % 3) + source];
  });
  return { ...components, features };
}

/** Components `rows · columns · 3` as opaque RGBA, each stretched over the full range. */
export function componentColours({ features }: Grid): Uint8ClampedArray<ArrayBuffer> {
  const count = features.length / 3;
  const colours = new Uint8ClampedArray(4 * count).fill(255);
  for (let channel = 0; channel < 3; channel++) {
    const values = Float64Array.from({ length: count }, (_, cell) => features[3 * cell + channel]);
    const sorted = values.slice().sort();
    const [low, high] = [TRIMMED, 100 - TRIMMED].map((percent) => percentile(sorted, percent));
    for (let cell = 0; cell < count; cell++) {
      const share = high > low ? (values[cell] - low) / (high - low) : 0.5;
      colours[4 * cell + channel] = Math.round(255 * Math.min(Math.max(share, 0), 1));
    }
  }
  return colours;
}

/** Cosine similarity of all patches to one of them, −1 to 1; 0 for a feature of zeros. */
export function similarity({ features, channels, columns }: Grid, row: number, column: number): Float32Array {
  const query = features.subarray((row * columns + column) * channels).subarray(0, channels);
  const length = (vector: Float32Array) => Math.hypot(...vector);
  const own = length(query);
  return Float32Array.from({ length: features.length / channels }, (_, cell) => {
    const vector = features.subarray(cell * channels, (cell + 1) * channels);
    const product = vector.reduce((sum, value, index) => sum + value * query[index], 0);
    return product / Math.max(own * length(vector), Number.MIN_VALUE);
  });
}

/** Similarities as opaque RGBA, dark at the least of them and bright at 1. */
export function similarityColours(values: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const low = Math.min(
    values.reduce((least, value) => Math.min(least, value), 1),
    1 - LEAST_RANGE,
  );
  const stops = VIRIDIS.map(channelsOf);
  const colours = new Uint8ClampedArray(4 * values.length).fill(255);
  values.forEach((value, cell) => {
    const place = Math.min(Math.max((value - low) / (1 - low), 0), 1) * (stops.length - 1);
    const before = Math.min(Math.floor(place), stops.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [stops[before][channel], stops[before + 1][channel]];
      colours[4 * cell + channel] = from + (to - from) * (place - before);
    }
  });
  return colours;
}

function percentile(sorted: Float64Array, percent: number): number {
  const place = ((sorted.length - 1) * percent) / 100;
  const before = Math.floor(place);
  const after = Math.min(before + 1, sorted.length - 1);
  return sorted[before] + (sorted[after] - sorted[before]) * (place - before);
}

function correlation(a: Float32Array, i: number, b: Float32Array, j: number): number {
  const count = a.length / 3;
  let [sa, sb, saa, sbb, sab] = [0, 0, 0, 0, 0];
  for (let cell = 0; cell < count; cell++) {
    const [x, y] = [a[3 * cell + i], b[3 * cell + j]];
    sa += x;
    sb += y;
    saa += x * x;
    sbb += y * y;
    sab += x * y;
  }
  const spread = Math.sqrt((saa - (sa * sa) / count) * (sbb - (sb * sb) / count));
  return spread > 0 ? (sab - (sa * sb) / count) / spread : 0;
}
