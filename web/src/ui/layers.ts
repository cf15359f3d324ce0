// SPDX-License-Identifier: Apache-2.0
/** What lies over a picture: the mask, where it is uncertain, strokes. Each is a canvas of the picture's size. */

import { channelsOf } from "../compute/colours";
import type { Raster } from "../compute/raster";
import { canvasOf } from "./dom";
import type { Region } from "./marks";

const OUTLINED = 0.35; // of the colour of a class over the image, beside its outlines; as `predict --overlay` draws it
const UNCERTAIN = 128; // 0 to 255: the most probable class leads by less than half
const HATCH = 4; // pixels from line to line

type Rgba = Uint8ClampedArray<ArrayBuffer>;

/** The picture itself as RGBA. */
export function rgbaOf({ rgb, width, height }: Raster): Rgba {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) rgba[4 * pixel + channel] = rgb[3 * pixel + channel];
  }
  return rgba;
}

/** Draw a part of a picture's labels in their colours; label 0 is transparent. */
export function paintLabels(
  context: CanvasRenderingContext2D,
  labels: Uint8Array,
  width: number,
  { left, top, right, bottom }: Region,
  colour: (label: number) => string,
): void {
  if (right <= left || bottom <= top) return;
  const image = new ImageData(right - left, bottom - top);
  const rgba = new Uint32Array(image.data.buffer);
  const colours = new Map<number, number>([[0, 0]]);
  let target = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const label = labels[y * width + x];
      let packed = colours.get(label);
      if (packed === undefined) {
        const [red, green, blue] = channelsOf(colour(label));
        packed = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
        colours.set(label, packed);
      }
      rgba[target++] = packed;
    }
  }
  context.putImageData(image, left, top);
}

/** Black and white lines where the mask is uncertain, which are seen on any colour. */
export function uncertainCanvas(uncertainty: Uint8Array, width: number, height: number): HTMLCanvasElement {
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let pixel = 0; pixel < uncertainty.length; pixel++) {
    if (uncertainty[pixel] < UNCERTAIN) continue;
    const line = ((pixel % width) + Math.floor(pixel / width)) % (2 * HATCH);
    if (line % HATCH !== 0) continue;
    rgba.fill(line === 0 ? 255 : 0, 4 * pixel, 4 * pixel + 3);
    rgba[4 * pixel + 3] = 255;
  }
  return canvasOf(rgba, width, height);
}

/** The picture under the colours of its classes, with their outlines, as RGB. */
export function overlay(raster: Raster, classes: Uint8Array, colour: (label: number) => string): Uint8Array {
  const { width, height, rgb } = raster;
  const colours = new Map([...new Set(classes)].map((label) => [label, channelsOf(colour(label))]));
  const blended = new Uint8Array(rgb.length);
  for (let pixel = 0; pixel < classes.length; pixel++) {
    const label = classes[pixel];
    const outline =
      (pixel % width < width - 1 && classes[pixel + 1] !== label) ||
      (pixel < width * (height - 1) && classes[pixel + width] !== label);
    const share = outline ? 1 : OUTLINED;
    const channels = colours.get(label)!;
    for (let k = 0; k < 3; k++) {
      blended[3 * pixel + k] = Math.round((1 - share) * rgb[3 * pixel + k] + share * channels[k]);
    }
  }
  return blended;
}
