// SPDX-License-Identifier: Apache-2.0
/** The licences of everything that is built into the page, as one text beside it. */

import { existsSync, readdirSync, readFileSync } from "node:fs";

interface Lock {
  packages: Record<string, { version: string; license?: string; dev?: boolean; optional?: boolean }>;
}

// What transformers.js needs outside of a browser.
const ELSEWHERE = /node_modules\/(sharp|@img\/|onnxruntime-node|adm-zip|global-agent|detect-libc|semver)/;

export function licences(root: URL): string {
  const { packages } = JSON.parse(readFileSync(new URL("package-lock.json", root), "utf8")) as Lock;
  const texts = Object.entries(packages)
    .filter(([path, { dev, optional }]) => path !== "" && !dev && !optional && !ELSEWHERE.test(path))
    .map(([path, { version, license }]) => {
      const folder = new URL(`${path}/`, root);
      const file = existsSync(folder)
        ? readdirSync(folder).find((name) => /^(licen[cs]e|copying)/i.test(name))
        : undefined;
      const text = file ? readFileSync(new URL(file, folder), "utf8").trim() : `Licence: ${license}`;
      return `${path.replace(/.*node_modules\//, "")} ${version} (${license})\n\n${text}\n`;
    });
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}
