// SPDX-License-Identifier: Apache-2.0
/** Any image file that a page can read. */

import { isPng, openPng } from "./png";
import { requireSize, type ImageFile } from "./stored";
import { isTiff, openTiff } from "./tiff";

const BROWSERS = ["JPEG", "WebP", "GIF", "BMP", "AVIF"]; // formats that a browser decodes, to 8 bits

/**
 * Open a file.
 *
 * @throws Error it cannot be read; the message names it and says what can be.
 */
export async function openImage(file: File): Promise<ImageFile> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  try {
    if (bytes.length === 0) throw new Error("it is empty");
    if (isPng(bytes)) return openPng(bytes);
    if (isTiff(bytes)) return await openTiff(bytes);
    return await openBitmap(file);
  } catch (error) {
    throw new Error(`${file.name} cannot be read: ${reason(error)}. ${READABLE}`, { cause: error });
  }
}

const READABLE =
  `This page reads TIFF, PNG, ${BROWSERS.join(", ")}. Save the image as TIFF or PNG; the command alibi-dinov2 reads ` +
  "the formats of microscopes, too.";

/** The message of whatever was thrown, without a full stop. */
export function reason(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\.$/, "");
}

async function openBitmap(file: File): Promise<ImageFile> {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("it is no image, or damaged, or of a format that is not known here");
  });
  const { width, height } = bitmap;
  requireSize(width, height, 4);
  const context = new OffscreenCanvas(width, height).getContext("2d")!;
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(data.buffer);
  const lossy = file.type.replace("image/", "").toUpperCase() || "this format";
  const stored = { width, height, samples: 4, values, bits: 8, opacity: 3, lossy };
  return { slices: 1, read: async () => stored };
}
