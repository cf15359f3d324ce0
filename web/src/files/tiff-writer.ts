// SPDX-License-Identifier: Apache-2.0
/** Masks as TIFF files. */

/** An uncompressed TIFF of 8-bit numbers, a page, least significant byte first. */
export function writeTiff(data: Uint8Array, width: number, height: number): Uint8Array<ArrayBuffer> {
  const [SHORT, LONG] = [3, 4];
  const start = 8 + 2 + 9 * 12 + 4; // header; number of entries, entries, no further page
  const entries = [
    [256, LONG, width],
    [257, LONG, height],
    [258, SHORT, 8], // bits per sample
    [259, SHORT, 1], // not compressed
    [262, SHORT, 1], // 0 is black
    [273, LONG, start], // where the pixels are
    [277, SHORT, 1], // sample per pixel
    [278, LONG, height], // rows in the one strip
    [279, LONG, data.length],
  ];
  const bytes = new Uint8Array(start + data.length);
  const view = new DataView(bytes.buffer);
  bytes.set([0x49, 0x49, 42, 0, 8, 0, 0, 0]);
  view.setUint16(8, entries.length, true);
  entries.forEach(([tag, type, value], index) => {
    const offset = 10 + 12 * index;
    view.setUint16(offset, tag, true);
    view.setUint16(offset + 2, type, true);
    view.setUint32(offset + 4, 1, true);
    view.setUint32(offset + 8, value, true);
  });
  bytes.set(data, start);
  return bytes;
}
