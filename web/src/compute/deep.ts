// SPDX-License-Identifier: Apache-2.0
/** From the features of a picture's windows to what is shown of them and what segmentation sees of them. */

import { fitReduction, Moments, reduced, standardised } from "./components";
import { Blend, cropped, windowsOf, type Grid, type Window } from "./windows";

const COMPONENTS = 9; // that are left for segmentation

/** Gathers the features of windows, in the order of `windowsOf`. */
export class DeepFeatures {
  private readonly windows: Window[];
  private readonly blend: Blend;
  private readonly moments: Moments;
  private added = 0;

  /** @param channels of the model's features. */
  constructor(
    private readonly picture: { width: number; height: number },
    channels: number,
  ) {
    this.windows = windowsOf(picture);
    this.blend = new Blend(picture, channels);
    this.moments = new Moments(channels);
  }

  add(features: Float32Array): void {
    this.blend.add(this.windows[this.added++], features);
    this.moments.add(features);
  }

  /** Once all are added: the features of patches in the picture, and their principal components for the segmenter. */
  result(): { features: Grid; components: Grid } {
    const grid = this.blend.grid();
    const components = reduced(grid, fitReduction(this.moments, COMPONENTS, true));
    return {
      features: cropped(grid, this.picture),
      components: standardised(components, cropped(components, this.picture)),
    };
  }
}
