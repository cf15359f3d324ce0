// SPDX-License-Identifier: Apache-2.0
/**
 * Features of pixels by classical filters: `ClassicalFeatures(sigmas=SIGMAS, membrane=False)` of
 * `alibi_dinov2/features/classical_features.py`, a plane for each feature and channel.
 *
 * Without the widest Gaussian and the membrane projections a grey megapixel takes 140 MB, which a phone still gives.
 */

import { intensities, mirrored, type Raster } from "./raster";

export const SIGMAS = [1, 2, 4, 8];
const TRUNCATE = 4; // standard deviations at which Gaussians end
const MARGIN = 2; // pixels that central differences of central differences reach

/** Planes of a channel: intensity; blurs; of each blur Sobel, Hessian xx, xy, yy, its eigenvalues; differences. */
export const PLANES_PER_CHANNEL = 1 + 7 * SIGMAS.length + (SIGMAS.length * (SIGMAS.length - 1)) / 2;

/** All features of a picture, `width · height` float32 each; `progress` is told the share that is done. */
export function classicalFeatures(raster: Raster, progress: (share: number) => void = () => {}): Float32Array[] {
  const { width, height } = raster;
  const channels = intensities(raster);
  return channels.flatMap((intensity, channel) => {
    const blurs: Float32Array[] = [];
    const derived: Float32Array[][] = Array.from({ length: 6 }, () => []);
    SIGMAS.forEach((sigma, number) => {
      const blur = gaussian(intensity, width, height, sigma);
      blurs.push(blur);
      derivatives(blur, width, height).forEach((plane, kind) => derived[kind].push(plane));
      progress((channel + (number + 1) / SIGMAS.length) / channels.length);
    });
    const differences = SIGMAS.flatMap((_, narrow) =>
      blurs.slice(narrow + 1).map((wide) => wide.map((value, index) => blurs[narrow][index] - value)),
    );
    return [intensity, ...blurs, ...derived.flat(), ...differences];
  });
}

/** Gaussian blur, the picture mirrored at its borders. */
export function gaussian(plane: Float32Array, width: number, height: number, sigma: number): Float32Array {
  const radius = Math.floor(TRUNCATE * sigma + 0.5);
  const weights = Array.from({ length: radius + 1 }, (_, distance) => Math.exp(-0.5 * (distance / sigma) ** 2));
  const sum = 2 * weights.reduce((total, weight) => total + weight) - weights[0];
  const kernel = Float64Array.from(weights, (weight) => weight / sum);

  const across = new Float32Array(plane.length);
  const line = new Float32Array(width + 2 * radius);
  for (let row = 0; row < height; row++) {
    for (let x = -radius; x < width + radius; x++) line[x + radius] = plane[row * width + mirrored(x, width)];
    for (let x = 0; x < width; x++) {
      let value = kernel[0] * line[x + radius];
      for (let k = 1; k <= radius; k++) value += kernel[k] * (line[x + radius - k] + line[x + radius + k]);
      across[row * width + x] = value;
    }
  }
  const blurred = new Float32Array(plane.length);
  const total = new Float64Array(width);
  for (let row = 0; row < height; row++) {
    for (let x = 0; x < width; x++) total[x] = kernel[0] * across[row * width + x];
    for (let k = 1; k <= radius; k++) {
      const weight = kernel[k];
      const above = mirrored(row - k, height) * width;
      const below = mirrored(row + k, height) * width;
      for (let x = 0; x < width; x++) total[x] += weight * (across[above + x] + across[below + x]);
    }
    blurred.set(total, row * width);
  }
  return blurred;
}

/** Sobel magnitude, Hessian `xx`, `xy`, `yy`, and its larger and smaller eigenvalue, by central differences. */
export function derivatives(blur: Float32Array, width: number, height: number): Float32Array[] {
  const planes = Array.from({ length: 6 }, () => new Float32Array(blur.length));
  const [sobel, xx, xy, yy, larger, smaller] = planes;
  const stride = width + 2 * MARGIN;
  // The five rows that a row's differences reach, each with a margin.
  const rows = new Float32Array(5 * stride);
  const at = (dy: number) => (dy + MARGIN) * stride + MARGIN;
  const load = (slot: number, row: number) => {
    const source = mirrored(row, height) * width;
    for (let x = -MARGIN; x < width + MARGIN; x++) rows[slot * stride + MARGIN + x] = blur[source + mirrored(x, width)];
  };
  for (let dy = -MARGIN; dy < MARGIN; dy++) load(dy + MARGIN + 1, dy);
  const [a, b, c, d, e] = [at(-2), at(-1), at(0), at(1), at(2)];
  for (let row = 0; row < height; row++) {
    rows.copyWithin(0, stride);
    load(2 * MARGIN, row + MARGIN);
    for (let x = 0; x < width; x++) {
      const index = row * width + x;
      const nw = rows[b + x - 1];
      const ne = rows[b + x + 1];
      const sw = rows[d + x - 1];
      const se = rows[d + x + 1];
      const down = (sw + se - nw - ne) / 4 + (rows[d + x] - rows[b + x]) / 2;
      const right = (ne + se - nw - sw) / 4 + (rows[c + x + 1] - rows[c + x - 1]) / 2;
      const hxx = (rows[c + x + 2] - 2 * rows[c + x] + rows[c + x - 2]) / 4;
      const hyy = (rows[e + x] - 2 * rows[c + x] + rows[a + x]) / 4;
      const hxy = (se - sw - ne + nw) / 4;
      const mean = (hxx + hyy) / 2;
      const radius = Math.sqrt(((hxx - hyy) / 2) ** 2 + hxy * hxy);
      sobel[index] = Math.sqrt(down * down + right * right) * Math.SQRT1_2;
      xx[index] = hxx;
      xy[index] = hxy;
      yy[index] = hyy;
      larger[index] = mean + radius;
      smaller[index] = mean - radius;
    }
  }
  return planes;
}
