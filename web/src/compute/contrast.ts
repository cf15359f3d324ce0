// SPDX-License-Identifier: Apache-2.0
/** How values of any type become 8-bit grey levels; the rule `auto` of `modeling_alibi_dinov2/contrast.py`. */

export type Values =
  Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | Float32Array | Float64Array;

/** Linear, from `low`, which is black, to `high`, which is white; `tail` per cent of the values lie beyond each. */
export interface Contrast {
  low: number;
  high: number;
  tail: number;
}

// Per cent of the values that become black, and as many white: the first that keeps enough grey levels is taken.
const TAILS = [0.1, 0.5, 1, 2, 5, 0];
const MIN_LEVELS = 0.6; // of the distinct values, or of 64 if there are more
const COUNTED_LEVELS = 64;

/**
 * The contrast of values: unsigned ones of up to 8 bits as they are, others between percentiles that keep grey levels.
 *
 * @param values of all pixels; those of colours are taken together. NaN and infinite ones do not count.
 * @param bits that unsigned values use.
 * @throws Error too few grey levels would be left.
 */
export function findContrast(values: Values, bits: number): Contrast {
  if (isUnsigned(values) && bits <= 8) return { low: 0, high: 2 ** bits - 1, tail: 0 };
  const { distinct, cumulative } = distribution(values);
  if (distinct.length === 0) return { low: 0, high: 0, tail: 0 };
  const needed = MIN_LEVELS * Math.min(COUNTED_LEVELS, distinct.length);
  const total = cumulative[cumulative.length - 1];
  let best = 0;
  for (const tail of TAILS) {
    const cut = Math.floor((total * tail) / 100);
    const low = distinct[cumulative.findIndex((count) => count > cut)];
    const high = distinct[cumulative.findIndex((count) => count >= total - cut)];
    const left = low < high ? new Set(greyLevels(distinct, { low, high, tail })).size : 1;
    if (left >= needed) return { low, high, tail };
    best = Math.max(best, left);
  }
  throw new Error(
    `of ${distinct.length} different values from ${distinct[0]} to ${distinct[distinct.length - 1]} only ${best} ` +
      "would stay different grey levels: they are spread too unevenly. Choose what is to be seen with two numbers, " +
      "and save the image as 8-bit grey levels",
  );
}

/** Grey levels of values; those beyond the range are black or white, NaN and, of floating values, −∞ black. */
export function greyLevels(values: Values, { low, high }: Contrast): Uint8Array {
  const levels = new Uint8Array(values.length);
  if (low === high) return levels;
  if (values instanceof Uint8Array && low === 0 && high === 255) return values.slice();
  const scale = high - low;
  for (let index = 0; index < values.length; index++) {
    const share = (values[index] - low) / scale;
    levels[index] = share > 0 ? halfToEven(Math.min(share, 1) * 255) : 0; // NaN is not above 0
  }
  return levels;
}

/** The distinct values, ascending, and how many values are not greater than each. */
function distribution(values: Values): { distinct: Float64Array; cumulative: Float64Array } {
  const sorted = Float64Array.from(values).sort(); // NaN at the end
  let end = sorted.length;
  while (end > 0 && !(sorted[end - 1] < Infinity)) end--;
  let start = 0;
  while (start < end && sorted[start] === -Infinity) start++;
  const distinct: number[] = [];
  const cumulative: number[] = [];
  for (let index = start; index < end; index++) {
    if (index + 1 < end && sorted[index + 1] === sorted[index]) continue;
    distinct.push(sorted[index]);
    cumulative.push(index + 1 - start);
  }
  return { distinct: Float64Array.from(distinct), cumulative: Float64Array.from(cumulative) };
}

function isUnsigned(values: Values): boolean {
  return values instanceof Uint8Array || values instanceof Uint16Array || values instanceof Uint32Array;
}

/** As NumPy's `rint`; `Math.round` takes halves up. */
function halfToEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
