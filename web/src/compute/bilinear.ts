// SPDX-License-Identifier: Apache-2.0
/** Values of pixels, bilinear between the centres of patches, as `DeepFeatures.upsample`. */

import { PATCH } from "./windows";

/** For each pixel along an axis the patch before it, and how far it is on the way to the next one. */
export interface Positions {
  before: Int32Array;
  share: Float32Array;
}

export function positions(pixels: number, patches: number): Positions {
  const before = new Int32Array(pixels);
  const share = new Float32Array(pixels);
  for (let pixel = 0; pixel < pixels; pixel++) {
    // The first patch's centre is half a patch in.
    const centre = Math.min(Math.max((pixel + 0.5 - PATCH / 2) / PATCH, 0), patches - 1);
    before[pixel] = Math.min(Math.floor(centre), Math.max(patches - 2, 0));
    share[pixel] = centre - before[pixel];
  }
  return { before, share };
}
