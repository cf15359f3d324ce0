// SPDX-License-Identifier: Apache-2.0
/** Results as files: mask, labels, overlay, table of fractions; at the full size of the image's file. */

import { enlarge } from "../compute/raster";
import type { Segmentation } from "../compute/segmentation";
import type { Opened } from "../engine";
import { writePng } from "../files/png";
import { writeTiff } from "../files/tiff-writer";
import { save } from "./dom";
import { overlay } from "./layers";

/** A file's name without its suffix. */
export function stem(name: string): string {
  return name.replace(/\.[^.]+$/, "");
}

export function saveLabels(labels: Uint8Array<ArrayBuffer>, name: string, picture: Opened): void {
  savePng(full(labels, picture), picture, `${stem(name)}_labels.png`);
}

export function saveMask(classes: Uint8Array<ArrayBuffer>, name: string, picture: Opened, format: "png" | "tif"): void {
  const { fullWidth, fullHeight } = picture;
  const pixels = full(classes, picture);
  if (format === "png") savePng(pixels, picture, `${stem(name)}_mask.png`);
  else save(writeTiff(pixels, fullWidth, fullHeight), `${stem(name)}_mask.tif`, "image/tiff");
}

export function saveOverlay(
  classes: Uint8Array,
  name: string,
  { raster }: Opened,
  colour: (label: number) => string,
): void {
  const png = writePng(overlay(raster, classes, colour), raster.width, raster.height, 3);
  save(png, `${stem(name)}_overlay.png`, "image/png");
}

/** The columns are those of the table that `alibi-dinov2 predict` writes. */
export function saveFractions(
  { counts, classes }: Segmentation,
  file: string,
  slice: number,
  { step }: Opened,
  name: (label: number) => string,
): void {
  const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = [...counts].map(([label, count]) =>
    [quoted(file), slice, label, quoted(name(label)), count * step * step, count / classes.length].join(","),
  );
  const table = ["file,slice,class,name,pixels,fraction", ...rows].join("\r\n") + "\r\n";
  save(table, `${stem(file)}_fractions.csv`, "text/csv");
}

function full(
  small: Uint8Array<ArrayBuffer>,
  { raster, step, fullWidth, fullHeight }: Opened,
): Uint8Array<ArrayBuffer> {
  return enlarge(small, raster.width, step, fullWidth, fullHeight);
}

function savePng(pixels: Uint8Array, { fullWidth, fullHeight }: Opened, name: string): void {
  save(writePng(pixels, fullWidth, fullHeight), name, "image/png");
}
