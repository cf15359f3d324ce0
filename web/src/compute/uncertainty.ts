// SPDX-License-Identifier: Apache-2.0
/** Where the next stroke helps most: `where_to_draw` of `alibi_dinov2/segmentation/uncertainty.py`. */

export const PLACE = 64; // side in pixels of a place to draw in

/** The middle of a region in pixels, and the mean uncertainty in it, 0 to 1. */
export interface Place {
  row: number;
  column: number;
  uncertainty: number;
}

/**
 * The most uncertain regions, none over another, the most uncertain one first.
 *
 * @param uncertainty of each pixel, 0 to 255.
 * @param marks labels of each pixel; regions in which one is drawn already do not count.
 */
export function whereToDraw(uncertainty: Uint8Array, marks: Uint8Array, width: number, count = 5): Place[] {
  const height = uncertainty.length / width;
  const side = Math.min(PLACE, width, height);
  const before = Math.floor(side / 2);
  const sums = summedArea(width, height, (index) => uncertainty[index]);
  const drawn = summedArea(width, height, (index) => (marks[index] > 0 ? 1 : 0));
  const means = new Float64Array(width * height).fill(-1);
  for (let row = before; row <= height - (side - before); row++) {
    for (let column = before; column <= width - (side - before); column++) {
      if (drawn(row - before, column - before, side) > 0) continue;
      means[row * width + column] = sums(row - before, column - before, side) / (255 * side * side);
    }
  }
  const places: Place[] = [];
  while (places.length < count) {
    let best = 0;
    for (let index = 1; index < means.length; index++) if (means[index] > means[best]) best = index;
    if (means[best] < 0) break;
    const [row, column] = [Math.floor(best / width), best % width];
    places.push({ row, column, uncertainty: means[best] });
    for (let y = Math.max(row - side + 1, 0); y < Math.min(row + side, height); y++) {
      means.fill(-1, y * width + Math.max(column - side + 1, 0), y * width + Math.min(column + side, width));
    }
  }
  return places;
}

/** A function that gives the sum over a square from its corner and its side. */
function summedArea(width: number, height: number, value: (index: number) => number) {
  const stride = width + 1;
  const table = new Float64Array(stride * (height + 1));
  for (let y = 0; y < height; y++) {
    let line = 0;
    for (let x = 0; x < width; x++) {
      line += value(y * width + x);
      table[(y + 1) * stride + x + 1] = table[y * stride + x + 1] + line;
    }
  }
  return (row: number, column: number, side: number) =>
    table[(row + side) * stride + column + side] -
    table[row * stride + column + side] -
    table[(row + side) * stride + column] +
    table[row * stride + column];
}
