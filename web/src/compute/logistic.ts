// SPDX-License-Identifier: Apache-2.0
/**
 * Logistic regression on standardised features with balanced classes: what scikit-learn's `StandardScaler` and
 * `LogisticRegression(class_weight="balanced")` find, by the same method (L-BFGS) on the same loss.
 */

import { CholeskyDecomposition, Matrix } from "ml-matrix";

const ITERATIONS = 300;
const MEMORY = 10; // steps that L-BFGS remembers
const TOLERANCE = 1e-5; // largest entry of the gradient of the mean loss; scikit-learn stops at 1e-4

/** Logits are `bias + weights · features`, `weights[k]` those of class k. */
export interface LinearClassifier {
  weights: Float64Array[];
  bias: Float64Array;
}

/**
 * Fit to labelled pixels.
 *
 * @param features `n · channels` numbers, a vector for each pixel.
 * @param targets of each pixel, 0 to `classes` − 1, each of them at least once.
 * @param start a classifier of the same classes to begin at; the result is the same, sooner.
 */
export function fitLogistic(
  features: Float32Array,
  targets: Uint8Array,
  classes: number,
  start?: LinearClassifier,
): LinearClassifier {
  const count = targets.length;
  const channels = features.length / count;
  const { inputs, mean, scale } = standardise(features, channels);
  const members = new Float64Array(classes);
  targets.forEach((target) => members[target]++);
  // Balanced weights add up to 1 here: the loss is a mean, and the penalty 1/2 over the number of pixels.
  const weight = members.map((number) => 1 / (classes * number));
  const penalty = 1 / count;
  // Of two classes only the second has weights, as in scikit-learn: the penalty depends on that.
  const free = classes === 2 ? 1 : classes;
  const first = classes - free;
  const row = channels + 1; // weights of a class, then its bias

  const loss = (parameters: Float64Array, gradient: Float64Array): number => {
    let value = 0;
    gradient.fill(0);
    const logits = new Float64Array(classes);
    for (let pixel = 0; pixel < count; pixel++) {
      const start = pixel * channels;
      for (let k = 0; k < free; k++) {
        const begin = k * row;
        // Sums that do not wait for each other take a third of the time of a single one.
        let [a, b, c, d] = [parameters[begin + channels], 0, 0, 0];
        let j = 0;
        for (; j + 4 <= channels; j += 4) {
          a += parameters[begin + j] * inputs[start + j];
          b += parameters[begin + j + 1] * inputs[start + j + 1];
          c += parameters[begin + j + 2] * inputs[start + j + 2];
          d += parameters[begin + j + 3] * inputs[start + j + 3];
        }
        for (; j < channels; j++) a += parameters[begin + j] * inputs[start + j];
        logits[first + k] = a + b + c + d;
      }
      const largest = Math.max(...logits);
      let total = 0;
      for (let k = 0; k < classes; k++) total += Math.exp(logits[k] - largest);
      const target = targets[pixel];
      value += weight[target] * (Math.log(total) + largest - logits[target]);
      for (let k = 0; k < free; k++) {
        const share = Math.exp(logits[first + k] - largest) / total;
        const error = weight[target] * (share - (target === first + k ? 1 : 0));
        for (let j = 0; j < channels; j++) gradient[k * row + j] += error * inputs[start + j];
        gradient[k * row + channels] += error;
      }
    }
    for (let index = 0; index < parameters.length; index++) {
      if (index % row === channels) continue; // a bias is not penalised
      value += (penalty / 2) * parameters[index] ** 2;
      gradient[index] += penalty * parameters[index];
    }
    return value;
  };

  const initial = new Float64Array(free * row);
  if (start?.weights.length === classes && start.weights[0].length === channels) {
    for (let k = 0; k < free; k++) {
      const of = start.weights[first + k];
      of.forEach((value, j) => (initial[k * row + j] = value * scale[j]));
      initial[k * row + channels] = start.bias[first + k] + of.reduce((sum, value, j) => sum + value * mean[j], 0);
    }
  }
  const found = minimise(loss, initial, curvatureSolver(inputs, targets, channels, weight, penalty));

  const weights = Array.from({ length: classes }, () => new Float64Array(channels));
  const bias = new Float64Array(classes);
  for (let k = 0; k < free; k++) {
    const of = weights[first + k];
    bias[first + k] = found[k * row + channels];
    for (let j = 0; j < channels; j++) {
      of[j] = found[k * row + j] / scale[j];
      bias[first + k] -= of[j] * mean[j];
    }
  }
  return { weights, bias };
}

/** Features with mean 0 and variance 1 in each channel; channels that do not vary stay at 0. */
function standardise(features: Float32Array, channels: number) {
  const count = features.length / channels;
  const mean = new Float64Array(channels);
  const scale = new Float64Array(channels);
  for (let index = 0; index < features.length; index++) mean[index % channels] += features[index] / count;
  for (let index = 0; index < features.length; index++) {
    scale[index % channels] += (features[index] - mean[index % channels]) ** 2 / count;
  }
  for (let j = 0; j < channels; j++) scale[j] = scale[j] > 1e-24 ? Math.sqrt(scale[j]) : 1;
  const inputs = new Float32Array(features.length); // half as much to read
  for (let index = 0; index < features.length; index++) {
    inputs[index] = (features[index] - mean[index % channels]) / scale[index % channels];
  }
  return { inputs, mean, scale };
}

/**
 * Solves for the curvature of the loss where all classes are equally probable, but for a factor, class by class.
 *
 * Filters of neighbouring scales give nearly the same: without it L-BFGS takes several times the iterations.
 */
function curvatureSolver(
  inputs: Float32Array,
  targets: Uint8Array,
  channels: number,
  weight: Float64Array,
  penalty: number,
): (gradient: Float64Array) => Float64Array {
  const row = channels + 1;
  const products = new Float64Array(row * row); // lower triangle
  const vector = new Float64Array(row).fill(1); // the bias's input is 1
  targets.forEach((target, pixel) => {
    for (let j = 0; j < channels; j++) vector[j] = inputs[pixel * channels + j];
    for (let i = 0; i < row; i++) {
      const scaled = weight[target] * vector[i];
      for (let j = 0; j <= i; j++) products[i * row + j] += scaled * vector[j];
    }
  });
  const curvature = new Matrix(row, row);
  for (let i = 0; i < row; i++) {
    for (let j = 0; j <= i; j++) {
      const value = products[i * row + j] / 4 + (i === j ? penalty : 0);
      curvature.set(i, j, value);
      curvature.set(j, i, value);
    }
  }
  const factors = new CholeskyDecomposition(curvature);
  return (gradient) => {
    const classes = gradient.length / row;
    // A column for each class.
    const solved = factors.solve(Matrix.from1DArray(classes, row, gradient).transpose());
    return Float64Array.from(solved.transpose().to1DArray());
  };
}

/**
 * The minimum of a smooth convex function by L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.5).
 *
 * @param solve what a guess of the curvature takes for the gradient of a step, for the step.
 */
function minimise(
  loss: (point: Float64Array, gradient: Float64Array) => number,
  start: Float64Array,
  solve: (gradient: Float64Array) => Float64Array,
): Float64Array {
  let point = start.slice();
  let gradient = new Float64Array(point.length);
  let value = loss(point, gradient);
  const steps: { moved: Float64Array; turned: Float64Array; curvature: number }[] = [];
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    if (gradient.every((entry) => Math.abs(entry) < TOLERANCE)) break;
    let direction = gradient.map((entry) => -entry);
    const alphas: number[] = [];
    for (const { moved, turned, curvature } of [...steps].reverse()) {
      const alpha = dot(moved, direction) / curvature;
      alphas.push(alpha);
      addTo(direction, turned, -alpha);
    }
    const last = steps.at(-1);
    const size = last ? last.curvature / dot(last.turned, solve(last.turned)) : 1;
    direction = solve(direction).map((entry) => entry * size);
    for (const { moved, turned, curvature } of steps) {
      addTo(direction, moved, alphas.pop()! - dot(turned, direction) / curvature);
    }
    // Backtracking until the loss falls as much as its slope promises (Armijo).
    const slope = dot(gradient, direction);
    const next = new Float64Array(point.length);
    const nextGradient = new Float64Array(point.length);
    let length = 1;
    let nextValue = Infinity;
    for (let tries = 0; tries < 30; tries++, length /= 2) {
      point.forEach((entry, index) => (next[index] = entry + length * direction[index]));
      nextValue = loss(next, nextGradient);
      if (nextValue <= value + 1e-4 * length * slope) break;
    }
    if (!(nextValue < value)) break; // rounding lets nothing fall any more
    const moved = next.map((entry, index) => entry - point[index]);
    const turned = nextGradient.map((entry, index) => entry - gradient[index]);
    const curvature = dot(moved, turned);
    if (curvature > 0) {
      steps.push({ moved, turned, curvature });
      if (steps.length > MEMORY) steps.shift();
    }
    [point, gradient, value] = [next, nextGradient, nextValue];
  }
  return point;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let index = 0; index < a.length; index++) sum += a[index] * b[index];
  return sum;
}

function addTo(target: Float64Array, other: Float64Array, factor: number): void {
  for (let index = 0; index < target.length; index++) target[index] += factor * other[index];
}
