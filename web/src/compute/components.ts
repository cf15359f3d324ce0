// SPDX-License-Identifier: Apache-2.0
/** Principal components of features of patches. */

import { EigenvalueDecomposition, Matrix, QrDecomposition } from "ml-matrix";
import type { Grid } from "./windows";

const CONSTANT = 1e-4; // a component that varies less over a picture does so by rounding
// Of the subspace iteration: what is left of the wrong directions falls by the ratio of the eigenvalue SPARE further on to
// the last one that is wanted, which is below 0.7 for features of micrographs, with each iteration.
const SPARE = 7;
const ITERATIONS = 24;
const POWERS = 4; // products before directions are made orthogonal again: few enough that none loses its digits

/** Means and products of features, added up batch by batch, so that no window has to be kept. */
export class Moments {
  private count = 0;
  private readonly offset: Float64Array;
  private readonly sums: Float64Array;
  private readonly products: Float64Array; // upper triangle

  constructor(private readonly channels: number) {
    this.offset = new Float64Array(channels);
    this.sums = new Float64Array(channels);
    this.products = new Float64Array(channels * channels);
  }

  /** Count vectors, one after the other. */
  add(features: Float32Array): void {
    const { channels, offset, sums, products } = this;
    // The first vector is taken off, so that large means cost no digits.
    if (this.count === 0) offset.set(features.subarray(0, channels));
    const count = features.length / channels;
    // Four vectors at a time: the products are read and written a quarter as often.
    const [a, b, c, d] = Array.from({ length: 4 }, () => new Float64Array(channels));
    for (let start = 0; start < count; start += 4) {
      [a, b, c, d].forEach((vector, next) => {
        const source = (start + next) * channels;
        for (let i = 0; i < channels; i++) vector[i] = start + next < count ? features[source + i] - offset[i] : 0;
      });
      for (let i = 0; i < channels; i++) sums[i] += a[i] + b[i] + c[i] + d[i];
      // Two rows at a time, the last one of an odd number alone: vectors are read half as often.
      for (let i = 0; i < channels; i += 2) {
        const k = Math.min(i + 1, channels - 1);
        const row = i * channels;
        const next = k * channels;
        const ai = a[i];
        const bi = b[i];
        const ci = c[i];
        const di = d[i];
        const twice = k === i;
        const ak = twice ? 0 : a[k];
        const bk = twice ? 0 : b[k];
        const ck = twice ? 0 : c[k];
        const dk = twice ? 0 : d[k];
        for (let j = i; j < channels; j++) {
          const aj = a[j];
          const bj = b[j];
          const cj = c[j];
          const dj = d[j];
          products[row + j] += ai * aj + bi * bj + ci * cj + di * dj;
          products[next + j] += ak * aj + bk * bj + ck * cj + dk * dj;
        }
      }
    }
    this.count += count;
  }

  mean(): Float64Array {
    return this.sums.map((sum, index) => this.offset[index] + sum / this.count);
  }

  covariance(): Matrix {
    const { channels, count, sums, products } = this;
    const matrix = new Matrix(channels, channels);
    for (let i = 0; i < channels; i++) {
      for (let j = i; j < channels; j++) {
        const value = (products[i * channels + j] - (sums[i] * sums[j]) / count) / count;
        matrix.set(i, j, value);
        matrix.set(j, i, value);
      }
    }
    return matrix;
  }
}

/** Features less `mean`, over `scale`, onto `axes`, which are of length 1; `deviations` are those along them. */
export interface Reduction {
  mean: Float64Array;
  scale: Float64Array;
  axes: Float64Array[];
  deviations: Float64Array;
}

/**
 * The first principal components.
 *
 * @param standardise whether every channel is brought to variance 1 first, as for segmentation.
 */
export function fitReduction(moments: Moments, count: number, standardise: boolean): Reduction {
  const covariance = moments.covariance();
  const channels = covariance.rows;
  if (count > channels) throw new Error(`${count} principal components of ${channels} channels were asked for.`);
  const scale = Float64Array.from(covariance.diagonal(), (variance) =>
    standardise && variance > 0 ? Math.sqrt(variance) : 1,
  );
  for (let i = 0; i < channels; i++) {
    for (let j = 0; j < channels; j++) covariance.set(i, j, covariance.get(i, j) / (scale[i] * scale[j]));
  }
  const { values, vectors } = largestEigenvectors(covariance, count);
  return {
    mean: moments.mean(),
    scale,
    axes: vectors.map(upright),
    deviations: Float64Array.from(values, (value) => Math.sqrt(Math.max(value, 0))),
  };
}

/**
 * Eigenvectors of a symmetric matrix with no negative eigenvalues, those of the largest first: subspace iteration,
 * which takes a tenth of the time of all 384 of them.
 */
function largestEigenvectors(matrix: Matrix, count: number): { values: number[]; vectors: Float64Array[] } {
  const size = matrix.rows;
  const width = Math.min(count + SPARE, size);
  const entries = Float64Array.from(matrix.to1DArray());
  let basis = Float64Array.from({ length: size * width }, (_, index) => Math.sin(1 + index));
  for (let iteration = 0; iteration < ITERATIONS; iteration += POWERS) {
    for (let power = 0; power < POWERS; power++) basis = product(entries, basis, size);
    const columns = new QrDecomposition(Matrix.from1DArray(width, size, basis).transpose()).orthogonalMatrix;
    basis = Float64Array.from(columns.transpose().to1DArray());
  }
  const rows = Matrix.from1DArray(width, size, basis);
  const products = Matrix.from1DArray(width, size, product(entries, basis, size));
  const { realEigenvalues: values, eigenvectorMatrix: turn } = new EigenvalueDecomposition(
    rows.mmul(products.transpose()),
    { assumeSymmetric: true },
  );
  const turned = turn.transpose().mmul(rows);
  const order = Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
  const chosen = order.slice(0, count);
  return {
    values: chosen.map((index) => values[index]),
    vectors: chosen.map((index) => Float64Array.from(turned.getRow(index))),
  };
}

/** A symmetric matrix times vectors that follow each other, four at a time: their sums do not wait for each other. */
function product(matrix: Float64Array, vectors: Float64Array, size: number): Float64Array<ArrayBuffer> {
  const found = new Float64Array(vectors.length);
  const last = vectors.length - size;
  for (let start = 0; start <= last; start += 4 * size) {
    // Beyond the last vector it is the last one again.
    const [a, b, c, d] = [0, 1, 2, 3].map((next) => Math.min(start + next * size, last));
    for (let row = 0; row < size; row++) {
      const entry = row * size;
      let [sumA, sumB, sumC, sumD] = [0, 0, 0, 0];
      for (let column = 0; column < size; column++) {
        const value = matrix[entry + column];
        sumA += value * vectors[a + column];
        sumB += value * vectors[b + column];
        sumC += value * vectors[c + column];
        sumD += value * vectors[d + column];
      }
      found[a + row] = sumA;
      found[b + row] = sumB;
      found[c + row] = sumC;
      found[d + row] = sumD;
    }
  }
  return found;
}

/** The principal components of a grid; `grid` may be larger than what they were found on. */
export function reduced(grid: Grid, { mean, scale, axes }: Reduction): Grid {
  const features = new Float32Array(grid.rows * grid.columns * axes.length);
  for (let cell = 0; cell < grid.rows * grid.columns; cell++) {
    axes.forEach((axis, number) => {
      let sum = 0;
      for (let k = 0; k < axis.length; k++) {
        sum += axis[k] * ((grid.features[cell * grid.channels + k] - mean[k]) / scale[k]);
      }
      features[cell * axes.length + number] = sum;
    });
  }
  return { ...grid, channels: axes.length, features };
}

/** A grid whose channels have mean 0 and variance 1 over the patches of `inside`, which is a part of it. */
export function standardised(grid: Grid, inside: Grid): Grid {
  const { channels } = grid;
  const count = inside.rows * inside.columns;
  const mean = new Float64Array(channels);
  const square = new Float64Array(channels);
  inside.features.forEach((value, index) => (mean[index % channels] += value / count));
  inside.features.forEach(
    (value, index) => (square[index % channels] += (value - mean[index % channels]) ** 2 / count),
  );
  const scale = square.map((variance) => (Math.sqrt(variance) > CONSTANT ? Math.sqrt(variance) : 1));
  const features = grid.features.map((value, index) => (value - mean[index % channels]) / scale[index % channels]);
  return { ...grid, features };
}

/** An axis turned so that its largest entry is positive, as scikit-learn turns it. */
function upright(axis: Float64Array): Float64Array {
  const largest = axis.reduce((best, value) => (Math.abs(value) > Math.abs(best) ? value : best), 0);
  return largest < 0 ? axis.map((value) => -value) : axis;
}
