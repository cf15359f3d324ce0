// SPDX-License-Identifier: Apache-2.0
/** How long the page takes; `npm run speed` writes the table into docs/web.md. Run it while nothing else runs. */

import { readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { expect, it } from "vitest";
import { FIXTURES, REPOSITORY, serve, Visit } from "./harness";

const DOCUMENT = `${REPOSITORY}/docs/web.md`;
const [BEGIN, END] = ["<!-- speed -->\n", "<!-- end of speed -->"];
const ROUNDS = 3;
const STROKES = 9;

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

it("is measured", async () => {
  const { address, process: server } = await serve();
  const features: Record<string, number[]> = { "518": [], "1024": [] };
  const strokes: number[] = [];
  let threads = "";
  try {
    for (let round = 0; round < ROUNDS; round++) {
      // A new browser each time: nothing is compiled or cached yet.
      const visit = await Visit.begin(address);
      threads = /(\d+ threads?|graphics processor)/.exec((await visit.page.textContent("#downloads"))!)![0];
      for (const side of round === 0 ? ["518", "1024"] : ["518"]) {
        await visit.drop(`${FIXTURES}speed-${side}.png`);
        await visit.analysed(`speed-${side}.png`);
        const text = (await visit.page.locator("#progress-label", { hasText: "Features took" }).textContent())!;
        features[side].push(Number(/[\d.]+/.exec(text)![0]));
      }
      if (round === 0) {
        const picture = { width: 1024, height: 1024 };
        await visit.page.keyboard.press("1");
        await visit.stroke(picture, [100, 100], [200, 110]);
        await visit.page.keyboard.press("2");
        for (let stroke = 0; stroke < STROKES; stroke++) {
          const y = 200 + 80 * stroke;
          strokes.push(await visit.segmented(() => visit.stroke(picture, [300, y], [420, y + 20])));
        }
      }
      await visit.browser.close();
    }
  } finally {
    server.kill();
  }
  const row = (what: string, values: number[]) =>
    `| ${what} | ${median(values).toFixed(2)} s | ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)} s, ${values.length} |`;
  const table = [
    "| | median | from, to, times |",
    "|---|---|---|",
    row("first features of 518 × 518 pixels, the model loaded", features["518"]),
    row("features of 1024 × 1024 pixels", features["1024"]),
    row("stroke to mask at 1024 × 1024 pixels", strokes),
    "",
    `${cpus()[0].model}, ${cpus().length} cores; Chromium, WebAssembly, ${threads}, 8-bit weights.`,
    "",
  ].join("\n");
  console.log(table);
  const text = readFileSync(DOCUMENT, "utf8");
  const [before, after] = [text.split(BEGIN)[0], text.split(END)[1]];
  expect(after).toBeDefined();
  writeFileSync(DOCUMENT, `${before}${BEGIN}${table}${END}${after}`);
});
