// SPDX-License-Identifier: Apache-2.0
/** The page in Debian's Chromium, served by `alibi-dinov2 app`. */

import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { decode } from "fast-png";
import { chromium, type Browser, type BrowserContext, type Download, type Page } from "playwright-core";

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export const REPOSITORY = at("../../..");
export const FIXTURES = at("../fixtures/");
export const SCREENSHOTS = at("../screenshots/");
const PYTHON = process.env.PYTHON ?? `${REPOSITORY}/.venv/bin/python`;
const MODEL = process.env.ONNX_MODEL ?? `${REPOSITORY}/demo/onnx/alibi-dinov2-small-ONNX`;
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Run a command of the Python package; gives what it printed, and raises an error if it failed. */
export function python(...words: string[]): string {
  const { status, stdout, stderr } = spawnSync(PYTHON, words, { cwd: REPOSITORY, encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
  return stdout;
}

/** The server, once it has printed its address. */
export async function serve(): Promise<{ address: string; process: ChildProcess }> {
  const words = ["-m", "alibi_dinov2.cli", "app", "--port", "0", "--model", MODEL];
  const started = spawn(PYTHON, words, { cwd: REPOSITORY, stdio: ["ignore", "pipe", "inherit"] });
  const address = await new Promise<string>((resolve, reject) => {
    started.stdout.on("data", (text: Buffer) => resolve(text.toString().split(" ")[0]));
    started.on("exit", (status) => reject(new Error(`alibi-dinov2 app ended with ${status}`)));
  });
  return { address, process: started };
}

/** The built page as a server gives it that knows nothing of threads, nor of any model. */
export async function servePlainly(): Promise<{ address: string; close: () => void }> {
  const types: Record<string, string> = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
  const server = createServer((request, response) => {
    const path = join(REPOSITORY, "alibi_dinov2/page", request.url === "/" ? "index.html" : request.url!);
    if (!existsSync(path)) response.writeHead(404).end();
    else response.writeHead(200, { "content-type": types[extname(path)] ?? "" }).end(readFileSync(path));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = `http://localhost:${(server.address() as AddressInfo).port}/`;
  return { address, close: () => server.close() };
}

/** A browser whose requests and complaints are written down. */
export class Visit {
  readonly hosts = new Set<string>();
  readonly complaints: string[] = [];

  private constructor(
    readonly browser: Browser,
    readonly context: BrowserContext,
    readonly page: Page,
  ) {
    context.on("request", (request) => {
      const { protocol, hostname } = new URL(request.url());
      if (protocol.startsWith("http")) this.hosts.add(hostname);
    });
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) this.complaints.push(message.text());
    });
    page.on("dialog", (dialog) => dialog.accept()); // whether strokes that are not saved may go
    page.on("pageerror", (error) => this.complaints.push(error.message));
  }

  static async begin(address: string, size = { width: 1280, height: 860 }): Promise<Visit> {
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
    const context = await browser.newContext({ viewport: size, acceptDownloads: true });
    const visit = new Visit(browser, context, await context.newPage());
    await visit.page.goto(address);
    await visit.page.locator("#examples button").first().waitFor();
    return visit;
  }

  /** Drop a file on the page, as from a file manager. */
  async drop(path: string): Promise<void> {
    const content = readFileSync(path).toString("base64");
    await this.page.evaluate(
      ({ content, name }) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], name));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
      },
      { content, name: basename(path) },
    );
  }

  /** Wait until a picture's features are there. */
  async analysed(name: string): Promise<void> {
    const { page } = this;
    await page.locator("#image-facts", { hasText: name }).waitFor();
    await page.locator("input[name=model][value=ALiBi]:enabled").waitFor({ state: "attached", timeout: 200_000 });
  }

  /** Wait for the mask that follows something that is done. */
  async segmented(act: () => Promise<void>): Promise<number> {
    const label = this.page.locator("#progress-label");
    await label.evaluate((element) => (element.textContent = ""));
    await act();
    await this.page.locator("#progress-label", { hasText: "Segmented in" }).waitFor({ timeout: 30_000 });
    return Number(/[\d.]+/.exec((await label.textContent())!)![0]);
  }

  /** Draw with the mouse from place to place, in pixels of a picture of that size. */
  async stroke(picture: { width: number; height: number }, ...places: [number, number][]): Promise<void> {
    const box = (await this.page.locator("#image-canvas").boundingBox())!;
    const scale = Math.min(box.width / picture.width, box.height / picture.height);
    const left = box.x + (box.width - picture.width * scale) / 2;
    const top = box.y + (box.height - picture.height * scale) / 2;
    const [first, ...others] = places.map(([x, y]) => [left + x * scale, top + y * scale] as const);
    await this.page.mouse.move(...first);
    await this.page.mouse.down();
    for (const place of others) await this.page.mouse.move(...place, { steps: 6 });
    await this.page.mouse.up();
  }

  /** Click on what saves a file. */
  async save(id: string): Promise<Download> {
    const [download] = await Promise.all([this.page.waitForEvent("download"), this.page.click(`#${id}`)]);
    return download;
  }

  /** The numbers of a PNG that is saved. */
  async saved(id: string): Promise<Uint8Array> {
    return decode(readFileSync(await (await this.save(id)).path())).data as Uint8Array;
  }
}

export function png(path: string): Uint8Array {
  return decode(readFileSync(path)).data as Uint8Array;
}

/** Mean over the classes of a known answer of intersection over union. */
export function meanIou(found: Uint8Array, known: Uint8Array): number {
  const classes = [...new Set(known)];
  const scores = classes.map((label) => {
    let [both, either] = [0, 0];
    known.forEach((value, pixel) => {
      const [a, b] = [value === label, found[pixel] === label];
      both += a && b ? 1 : 0;
      either += a || b ? 1 : 0;
    });
    return both / either;
  });
  return scores.reduce((sum, score) => sum + score) / classes.length;
}

export function agreement(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`Masks of ${a.length} and ${b.length} pixels are compared.`);
  let same = 0;
  for (let pixel = 0; pixel < a.length; pixel++) same += a[pixel] === b[pixel] ? 1 : 0;
  return same / a.length;
}
