// SPDX-License-Identifier: Apache-2.0
/** Pictures as the model and the filters see them: 8-bit RGB. */

export interface Raster {
  width: number;
  height: number;
  /** RGB, row by row, `3 · width · height` bytes. */
  rgb: Uint8Array;
}

/** Whether the channels differ anywhere. */
export function hasColour({ rgb }: Raster): boolean {
  for (let index = 0; index < rgb.length; index += 3) {
    if (rgb[index] !== rgb[index + 1] || rgb[index] !== rgb[index + 2]) return true;
  }
  return false;
}

/** The channels that classical filters see, one for a grey picture and three for a coloured one, as intensities 0 to 1. */
export function intensities(raster: Raster): Float32Array[] {
  const channels = hasColour(raster) ? [0, 1, 2] : [0];
  return channels.map((channel) => {
    const plane = new Float32Array(raster.width * raster.height);
    for (let index = 0; index < plane.length; index++) plane[index] = raster.rgb[3 * index + channel] / 255;
    return plane;
  });
}

/** The picture made smaller: means over squares of `step` pixels; what is left over at the right and below is cut off. */
export function shrink(raster: Raster, step: number): Raster {
  if (step === 1) return raster;
  const width = Math.floor(raster.width / step);
  const height = Math.floor(raster.height / step);
  const rgb = new Uint8Array(3 * width * height);
  const sums = new Uint32Array(3 * width);
  for (let row = 0; row < height; row++) {
    sums.fill(0);
    for (let y = row * step; y < (row + 1) * step; y++) {
      for (let x = 0; x < width * step; x++) {
        const source = 3 * (y * raster.width + x);
        const target = 3 * Math.floor(x / step);
        for (let channel = 0; channel < 3; channel++) sums[target + channel] += raster.rgb[source + channel];
      }
    }
    for (let index = 0; index < sums.length; index++) {
      rgb[3 * width * row + index] = Math.round(sums[index] / (step * step));
    }
  }
  return { width, height, rgb };
}

/** One number for each pixel of a small picture -> the same for the large one that `shrink` made it of. */
export function enlarge(
  small: Uint8Array<ArrayBuffer>,
  width: number,
  step: number,
  fullWidth: number,
  fullHeight: number,
): Uint8Array<ArrayBuffer> {
  if (step === 1) return small;
  const height = small.length / width;
  const large = new Uint8Array(fullWidth * fullHeight);
  for (let y = 0; y < fullHeight; y++) {
    const row = Math.min(Math.floor(y / step), height - 1) * width;
    for (let x = 0; x < fullWidth; x++) {
      large[y * fullWidth + x] = small[row + Math.min(Math.floor(x / step), width - 1)];
    }
  }
  return large;
}

/** What `enlarge` made large, or labels of the large picture: the number in the middle of each square. */
export function reduceLabels(
  large: Uint8Array,
  fullWidth: number,
  width: number,
  height: number,
  step: number,
): Uint8Array<ArrayBuffer> {
  const small = new Uint8Array(width * height);
  const middle = Math.floor(step / 2);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) small[y * width + x] = large[(y * step + middle) * fullWidth + x * step + middle];
  }
  return small;
}

/** Any positions -> positions from 0 to `length` − 1, the borders' own pixels repeated (… 1 0 | 0 1 …). */
export function mirrored(position: number, length: number): number {
  const period = 2 * length;
  const folded = ((position % period) + period) % period;
  return Math.min(folded, period - 1 - folded);
}
