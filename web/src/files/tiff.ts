// SPDX-License-Identifier: Apache-2.0
/** TIFF files of any type of values, tiled, compressed, large, with pages; and 8-bit ones that are written. */

import { fromArrayBuffer, type GeoTIFFImage } from "geotiff";
import type { Values } from "../compute/contrast";
import { requireSize, type ImageFile, type Stored } from "./stored";

const Photometric = { WhiteIsZero: 0, BlackIsZero: 1, Rgb: 2, Palette: 3 };
const OPACITIES = [1, 2]; // kinds of extra samples that tell how opaque a pixel is
const JPEG = [6, 7]; // compressions

export function isTiff(bytes: Uint8Array): boolean {
  const order = String.fromCharCode(bytes[0], bytes[1]);
  const number = order === "II" ? bytes[2] : order === "MM" ? bytes[3] : 0;
  return number === 42 || number === 43;
}

export async function openTiff(bytes: Uint8Array<ArrayBuffer>): Promise<ImageFile> {
  const buffer = bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer : bytes.slice().buffer;
  const file = await fromArrayBuffer(buffer);
  const pages: GeoTIFFImage[] = [];
  for (let index = 0; index < (await file.getImageCount()); index++) {
    const page = await file.getImage(index);
    // Others are thumbnails, or the same picture made smaller.
    if (pages.length === 0 || isLike(page, pages[0])) pages.push(page);
  }
  return { slices: pages.length, read: (index) => readPage(pages[index]) };
}

function isLike(a: GeoTIFFImage, b: GeoTIFFImage): boolean {
  const kind = (page: GeoTIFFImage) => [
    page.getWidth(),
    page.getHeight(),
    page.getSamplesPerPixel(),
    page.getBitsPerSample(),
  ];
  return kind(a).join() === kind(b).join();
}

async function readPage(page: GeoTIFFImage): Promise<Stored> {
  const [width, height, samples] = [page.getWidth(), page.getHeight(), page.getSamplesPerPixel()];
  requireSize(width, height, samples);
  const field = async (name: string): Promise<unknown> =>
    page.fileDirectory.hasTag(name as never) ? page.fileDirectory.loadValue(name as never) : undefined;
  const photometric = ((await field("PhotometricInterpretation")) as number | undefined) ?? Photometric.BlackIsZero;
  const lossy = JPEG.includes((await field("Compression")) as number) ? "JPEG in a TIFF" : undefined;
  if (photometric > Photometric.Palette) {
    const rgb = await page.readRGB({ interleave: true });
    return { width, height, samples: 3, values: new Uint8Array(rgb as Uint8Array), bits: 8, lossy };
  }
  const values = (await page.readRasters({ interleave: true })) as unknown as Values;
  const extra = Array.from(((await field("ExtraSamples")) ?? []) as ArrayLike<number>);
  const first = samples - extra.length;
  const place = extra.findIndex((kind) => OPACITIES.includes(kind));
  const map = photometric === Photometric.Palette ? ((await field("ColorMap")) as ArrayLike<number>) : undefined;
  return {
    width,
    height,
    samples,
    values,
    bits: page.getBitsPerSample(),
    palette: map && paletteOf(map),
    opacity: place >= 0 && (first === 1 || first === 3) ? first + place : undefined,
    whiteIsZero: photometric === Photometric.WhiteIsZero,
    lossy,
  };
}

function paletteOf(map: ArrayLike<number>): number[][] {
  const size = map.length / 3;
  // Some writers give 8 bits where 16 are meant.
  const scale = Math.max(...Array.from(map)) < 256 ? 1 : 256;
  return Array.from({ length: size }, (_, index) =>
    [0, 1, 2].map((channel) => Math.floor(map[channel * size + index] / scale)),
  );
}
