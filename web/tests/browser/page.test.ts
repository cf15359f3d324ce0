// SPDX-License-Identifier: Apache-2.0
/** The page as its users have it, from the first look to a saved mask. */

import type { ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { labels } from "../../src/files/stored";
import { openTiff } from "../../src/files/tiff";
import { array } from "../fixtures";
import { agreement, FIXTURES, meanIou, png, python, SCREENSHOTS, serve, servePlainly, Visit } from "./harness";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const KNOWN = { width: 480, height: 400 };
const folder = mkdtempSync(join(tmpdir(), "page-"));

let address: string;
let server: ChildProcess;
let visit: Visit;

beforeAll(async () => {
  mkdirSync(SCREENSHOTS, { recursive: true });
  ({ address, process: server } = await serve());
  visit = await Visit.begin(address);
});

afterAll(async () => {
  await visit?.browser.close();
  server?.kill();
});

afterEach(() => {
  expect(visit.complaints.splice(0)).toEqual([]);
  expect([...visit.hosts]).toEqual(["localhost"]);
});

/** Serious and critical faults that axe finds. */
async function faults(): Promise<string[]> {
  await visit.page.addScriptTag({ path: AXE });
  return visit.page.evaluate(async () => {
    const axe = (globalThis as unknown as { axe: typeof import("axe-core") }).axe;
    const { violations } = await axe.run();
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  });
}

const message = (text: string) => visit.page.locator("#messages", { hasText: text });

/** Two strokes for the picture whose answer is known: in a disc and beside it. */
async function twoStrokes(): Promise<void> {
  await visit.page.keyboard.press("1");
  await visit.stroke(KNOWN, [260, 60], [440, 120]);
  await visit.page.keyboard.press("2");
  await visit.segmented(() => visit.stroke(KNOWN, [80, 90], [170, 150], [120, 180]));
}

describe("at first", () => {
  it("says what is downloaded and has threads", async () => {
    const text = (await visit.page.textContent("#downloads"))!;
    expect(text).toMatch(/model .* \d+ MB, runtime \d+ MB/);
    expect(await visit.page.evaluate(() => crossOriginIsolated)).toBe(true);
  });

  it.each(["light", "dark"])("has no serious fault of accessibility, %s", async (scheme) => {
    if (scheme === "dark") await visit.page.click("#theme-button");
    expect(await visit.page.getAttribute("html", "data-theme")).toBe(scheme);
    expect(await faults()).toEqual([]);
    await visit.page.screenshot({ path: `${SCREENSHOTS}first-${scheme}.png` });
    if (scheme === "dark") await visit.page.click("#theme-button");
  });

  it("has help with the keys, which has no fault either", async () => {
    await visit.page.keyboard.press("?");
    expect(await visit.page.locator("#help").getAttribute("open")).not.toBeNull();
    expect(await visit.page.locator("#keys tr").count()).toBeGreaterThan(12);
    expect(await faults()).toEqual([]);
    await visit.page.keyboard.press("Escape");
  });
});

describe.each(["known.png", "known-16-bits.tif"])("%s, dropped", (name) => {
  it("is analysed", async () => {
    await visit.drop(FIXTURES + name);
    await visit.analysed(name);
    // The second has values from 1,800 to 2,200 of 65,536; it says how they became grey levels.
    expect(await message("Contrast:").count()).toBe(name.endsWith("tif") ? 1 : 0);
  });

  it("is segmented after a stroke on each material", async () => {
    await twoStrokes();
    const found = await visit.saved("save-mask-png");
    const score = meanIou(found, png(`${FIXTURES}known-answer.png`));
    console.log(`${name}: mIoU ${score.toFixed(3)}`);
    expect(score).toBeGreaterThan(0.9);
    expect(await visit.page.textContent("#classes")).toMatch(/\d\d\.\d %/);
  });

  it("goes back and forth", async () => {
    const before = await visit.saved("save-mask-png");
    await visit.page.keyboard.press("Control+z");
    await visit.page.locator("#save-mask-png:disabled").waitFor(); // one class is no segmentation
    await visit.segmented(() => visit.page.keyboard.press("Control+Shift+Z"));
    expect(agreement(await visit.saved("save-mask-png"), before)).toBe(1);
  });

  it("gives labels away and takes them back", async () => {
    const mask = await visit.saved("save-mask-png");
    const download = await visit.save("save-labels");
    expect(download.suggestedFilename()).toBe(`${name.replace(/\..*/, "")}_labels.png`);
    const saved = join(folder, `${name}-labels.png`);
    await download.saveAs(saved);
    expect(new Set(png(saved))).toEqual(new Set([0, 1, 2]));
    await visit.page.click("#clear");
    await visit.page.locator("#save-labels:disabled").waitFor();
    await visit.segmented(() => visit.page.setInputFiles("#load-labels", saved));
    expect(agreement(await visit.saved("save-mask-png"), mask)).toBeGreaterThan(0.999);

    if (name.endsWith("png")) return; // once is enough
    const words = ["-m", "alibi_dinov2.cli", "fit", "--no-deep", "--images", FIXTURES + name, "--labels", saved];
    expect(python(...words, "--output", join(folder, `${name}-segmenter`))).toContain("2 classes from");
  });

  it("has the mask as TIFF too, an overlay and a table of fractions", async () => {
    const mask = await visit.saved("save-mask-png");
    const tiff = join(folder, "mask.tif");
    await (await visit.save("save-mask-tiff")).saveAs(tiff);
    const file = await openTiff(new Uint8Array(readFileSync(tiff)));
    expect(agreement(labels(await file.read(0)), mask)).toBe(1);
    expect((await visit.saved("save-overlay")).length).toBe(3 * mask.length);
    const table = readFileSync(await (await visit.save("save-fractions")).path(), "utf8")
      .trim()
      .split("\r\n");
    expect(table[0]).toBe("file,slice,class,name,pixels,fraction");
    expect(table.slice(1).reduce((sum, row) => sum + Number(row.split(",")[4]), 0)).toBe(mask.length);
  });
});

describe("an open picture", () => {
  it("is drawn on with the keyboard alone", async () => {
    const { page } = visit;
    await page.click("#clear");
    await page.focus("#image-canvas");
    for (const [label, keys] of [
      ["1", ["ArrowLeft"]],
      ["2", Array<string>(6).fill("Shift+ArrowRight")],
    ] as const) {
      await page.keyboard.press(label);
      for (const key of keys) await page.keyboard.press(key);
      await page.keyboard.press("Space");
    }
    await page.locator("#save-mask-png:enabled").waitFor();
    expect(new Set(await visit.saved("save-labels"))).toEqual(new Set([0, 1, 2]));
  });

  it("tells where to draw next, and what is uncertain", async () => {
    await visit.page.click("#where-next");
    await message("least certain").waitFor();
    await visit.page.check("#show-uncertain");
    await visit.page.uncheck("#show-uncertain");
  });

  it("shows what is like a patch", async () => {
    const box = (await visit.page.locator("#features-canvas").boundingBox())!;
    await visit.page.mouse.click(box.x + box.width / 2, box.y + box.height / 2);
    await visit.page.locator("#show-colours").waitFor();
    await visit.page.click("#show-colours");
    await visit.page.locator("#show-colours").waitFor({ state: "hidden" });
  });

  it("stays when a file cannot be read, which is said", async () => {
    await visit.page.setInputFiles("#open-input", {
      name: "broken.czi",
      mimeType: "",
      buffer: Buffer.from("ZISRAWFILE"),
    });
    await message("broken.czi cannot be read").waitFor();
    await message("TIFF").waitFor();
    const png = readFileSync(`${FIXTURES}known.png`);
    await visit.page.setInputFiles("#open-input", {
      name: "torn.png",
      mimeType: "image/png",
      buffer: png.subarray(0, 5000),
    });
    await message("torn.png cannot be read").waitFor();
    expect(await visit.page.textContent("#image-facts")).toContain("known-16-bits.tif");
    expect(await visit.page.locator("#save-mask-png").isEnabled()).toBe(true);
  });

  it("refuses labels of another size, or with colours", async () => {
    await visit.page.setInputFiles("#load-labels", `${FIXTURES}nickel-crop-labels.png`);
    await message("nickel-crop-labels.png has 518 × 518 pixels, the image 480 × 400").waitFor();
    await visit.page.locator("#messages button").first().click();
  });
});

describe("a shipped micrograph", () => {
  it("gets the mask that Python makes of the same labels", async () => {
    await visit.page.setInputFiles("#open-input", `${FIXTURES}nickel-crop.png`);
    await visit.analysed("nickel-crop.png");
    await visit.segmented(() => visit.page.setInputFiles("#load-labels", `${FIXTURES}nickel-crop-labels.png`));
    const same = agreement(await visit.saved("save-mask-png"), array("nickel-crop-classes"));
    console.log(`page and Python agree in ${(100 * same).toFixed(2)} % of pixels`);
    expect(same).toBeGreaterThan(0.97);
  });

  it("is an example with features of three models", async () => {
    const { page } = visit;
    await page.click("#examples button >> nth=0");
    await page.locator("input[name=model][value=DINOv2]:checked").waitFor({ state: "attached" }); // before the model ran
    await visit.analysed("superalloy_spot4");
    const picture = { width: 512, height: 512 };
    await page.keyboard.press("1");
    await visit.stroke(picture, [150, 194], [206, 194]);
    await page.keyboard.press("2");
    await visit.segmented(() => visit.stroke(picture, [305, 315], [331, 374]));
    await page.screenshot({ path: `${SCREENSHOTS}1280.png` });
    const pictures = new Set<string>();
    const shown = async () => (await page.locator("#features-canvas").screenshot()).toString("base64");
    pictures.add(await shown());
    for (const model of ["DINOv2", "NoPE"]) {
      await page.locator(`input[name=model][value=${model}]`).check({ force: true });
      await expect.poll(async () => pictures.has(await shown()), { timeout: 20_000 }).toBe(false);
      pictures.add(await shown());
    }
    await page.locator("input[name=model][value=ALiBi]").check({ force: true });
    expect(await faults()).toEqual([]);
  });

  it("is seen on a narrow screen", async () => {
    const { page } = visit;
    await page.setViewportSize({ width: 390, height: 844 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${SCREENSHOTS}390.png`, fullPage: true });
    expect(await faults()).toEqual([]);
    await page.setViewportSize({ width: 1280, height: 860 });
  });
});

describe("a large picture", () => {
  it("is made smaller, and said to be, and its labels are as large as it is", async () => {
    await visit.page.setInputFiles("#open-input", `${FIXTURES}large.png`);
    await message("2000 × 2400 pixels, more than this page can segment").waitFor();
    await visit.stroke({ width: 1000, height: 1200 }, [500, 500], [600, 600]);
    const saved = await visit.saved("save-labels");
    expect(saved.length).toBe(2000 * 2400);
  });
});

describe("from a server without headers and model", () => {
  it("says that there are no threads, and that the features could not be computed", async () => {
    const plain = await servePlainly();
    const other = await Visit.begin(plain.address);
    try {
      await other.page.route("https://**", (route) => route.abort()); // the Hub cannot be reached
      await other.page.locator("#messages", { hasText: "There are no threads either" }).waitFor();
      await other.drop(`${FIXTURES}known.png`);
      await other.page.locator("#messages", { hasText: "The features could not be computed" }).waitFor();
      expect(await other.page.textContent("#image-facts")).toContain("known.png");
    } finally {
      await other.browser.close();
      plain.close();
    }
  });
});

describe("without a network", () => {
  it("works once it was loaded", async () => {
    server.kill();
    await visit.page.reload();
    await visit.page.click("#examples button >> nth=2");
    await visit.analysed("superalloy_pt2");
    visit.complaints.length = 0; // that the server does not answer
  });
});
