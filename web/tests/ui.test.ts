// SPDX-License-Identifier: Apache-2.0
/** Strokes, views and files, without a browser. */

import { describe, expect, it } from "vitest";
import { classColour } from "../src/compute/colours";
import { openPng, writePng } from "../src/files/png";
import { labels, seen, type Stored } from "../src/files/stored";
import { openTiff } from "../src/files/tiff";
import { writeTiff } from "../src/files/tiff-writer";
import { Marks } from "../src/ui/marks";
import { stem } from "../src/ui/saving";
import { Viewport } from "../src/ui/viewport";

describe("strokes", () => {
  it("are discs along a line, and report what they touch", () => {
    const marks = new Marks(20, 10);
    marks.drawTo(3, 5, 2, 1);
    const { left, top, right, bottom } = marks.drawTo(15, 5, 2, 1);
    expect(marks.end()).toBe(true);
    const drawn = [...marks.labels.keys()].filter((pixel) => marks.labels[pixel]);
    expect(drawn.every((pixel) => Math.abs(Math.floor(pixel / 20) + 0.5 - 5) < 2)).toBe(true);
    for (let x = 2; x < 17; x++) expect(marks.labels[5 * 20 + x]).toBe(1);
    expect(drawn.every((p) => p % 20 >= left && p % 20 < right && p / 20 >= top && p / 20 < bottom)).toBe(true);
  });

  it("mark the pixel under the finest brush, and nothing outside of the picture", () => {
    const marks = new Marks(4, 4);
    marks.drawTo(2.3, 1.8, 0.5, 7);
    marks.end();
    expect([...marks.labels].map((label, pixel) => (label ? pixel : -1)).filter((pixel) => pixel >= 0)).toEqual([6]);
    marks.drawTo(-3, 9, 0.5, 7);
    expect(marks.end()).toBe(false);
  });

  it("are undone and done again, also over others and when erased", () => {
    const marks = new Marks(30, 30);
    const states = [marks.labels.slice()];
    const strokes: [number, number, number][] = [[5, 5, 1], [9, 6, 2], [7, 6, 0], [20, 20, 3]]; // prettier-ignore
    for (const [x, y, label] of strokes) {
      marks.drawTo(x, y, 4, label);
      marks.end();
      states.push(marks.labels.slice());
    }
    marks.replace(new Uint8Array(900).fill(9));
    states.push(marks.labels.slice());
    for (const state of states.slice(0, -1).reverse()) {
      expect(marks.undo()).toBe(true);
      expect([...marks.labels]).toEqual([...state]);
    }
    expect(marks.undo()).toBe(false);
    for (const state of states.slice(1)) {
      expect(marks.redo()).toBe(true);
      expect([...marks.labels]).toEqual([...state]);
    }
    marks.undo();
    marks.drawTo(1, 1, 1, 5);
    marks.end();
    expect(marks.canRedo).toBe(false);
    expect(marks.used).toEqual([1, 2, 3, 5]);
  });
});

describe("a viewport", () => {
  it("keeps what is under the pointer where it is, and the picture in sight", () => {
    const viewport = new Viewport();
    viewport.resize(400, 300);
    viewport.show(1000, 500);
    expect(viewport.scale).toBeCloseTo(0.4);
    const before = viewport.toPicture(100, 120);
    viewport.zoom(3, 100, 120);
    const after = viewport.toPicture(100, 120);
    expect([after.x, after.y]).toEqual([expect.closeTo(before.x), expect.closeTo(before.y)]);
    viewport.pan(1e6, -1e6);
    expect(viewport.toPicture(400, 0).x).toBeGreaterThan(0);
    expect(viewport.toPicture(0, 0).y).toBeLessThan(500);
    viewport.zoom(1e9);
    expect(viewport.scale).toBe(64);
  });
});

describe("files", () => {
  const numbers = Uint8Array.from({ length: 35 }, (_, index) => index * 7);

  it("are the same after they were written and read as PNG", async () => {
    const stored = await openPng(writePng(numbers, 7, 5)).read(0);
    expect([stored.width, stored.height, stored.samples, stored.bits]).toEqual([7, 5, 1, 8]);
    expect([...labels(stored)]).toEqual([...numbers]);
  });

  it("are the same after they were written and read as TIFF", async () => {
    const file = await openTiff(writeTiff(numbers, 7, 5));
    expect(file.slices).toBe(1);
    expect([...labels(await file.read(0))]).toEqual([...numbers]);
  });

  const stored = (values: Stored["values"], more: Partial<Stored> = {}): Stored => {
    return { width: values.length, height: 1, samples: 1, values, bits: 8 * values.BYTES_PER_ELEMENT, ...more };
  };

  it.each<[string, Stored, number[]]>([
    ["white at zero", stored(Uint8Array.from([0, 10, 255]), { whiteIsZero: true }), [255, 245, 0]],
    ["a bit", stored(Uint8Array.from([0, 1]), { bits: 1 }), [0, 255]],
    ["a palette", stored(Uint8Array.from([1, 0]), { palette: [[9, 9, 9], [200, 200, 200]] }), [200, 9]], // prettier-ignore
    ["NaN", stored(Float32Array.from([NaN, 0, 1])), [0, 0, 255]],
    ["opacity", stored(Uint8Array.from([100, 0, 100, 255]), { width: 2, samples: 2, opacity: 1 }), [255, 100]],
    ["one value", stored(Uint16Array.from([7, 7])), [0, 0]],
  ])("are seen with %s", (_, file, levels) => {
    const { raster } = seen(file);
    expect([...raster.rgb]).toEqual(levels.flatMap((level) => [level, level, level]));
  });

  it("say what was done to their values", () => {
    const values = Uint16Array.from({ length: 1000 }, (_, index) => 30_000 + index);
    expect(seen(stored(values)).notes.join()).toMatch(/30001 to 30998 from black to white, 0.1 %/);
    expect(seen(stored(Float32Array.from([NaN, Infinity, 0, 1, 2]))).notes.join()).toMatch(/2 values are NaN/);
    expect(seen(stored(new Uint8Array(8), { width: 2, samples: 4 })).notes.join()).toMatch(/Three of its 4/);
  });

  it.each<[Stored, RegExp]>([
    [stored(Uint8Array.from([1, 2, 3]), { width: 1, samples: 3 }), /colours/],
    [stored(Uint16Array.from([256])), /value 256/],
    [stored(Float32Array.from([0.5])), /0.5/],
    [stored(Int16Array.from([-1])), /-1/],
    [stored(Uint8Array.from([1]), { lossy: "JPEG" }), /JPEG changes values/],
  ])("that are no labels are refused, case %#", (file, reason) => expect(() => labels(file)).toThrow(reason));

  it("are called after the image", () => {
    expect(["a.tif", "b.ome.tif", "c"].map(stem)).toEqual(["a", "b.ome", "c"]);
  });
});

describe("colours of classes", () => {
  it("are those of the Python package", () => {
    expect([1, 2, 7, 8, 255].map(classColour)).toEqual(["#0072b2", "#e69f00", "#f0e442", "#400000", "#e0e0c0"]);
  });
});
