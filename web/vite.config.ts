// SPDX-License-Identifier: Apache-2.0
import { readdirSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";
import { licences } from "./licences.ts";

// Threads of WebAssembly need a page that nothing foreign can look into.
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

const PUBLIC = fileURLToPath(new URL("public/", import.meta.url));

/**
 * What lies beside the page: the licences of what it is built of, and the service worker with the lists of its files,
 * which keeps all from the start but what runs the model.
 */
function besideThePage(): Plugin {
  return {
    name: "beside-the-page",
    apply: "build",
    generateBundle(_, bundle) {
      const built = Object.keys(bundle).filter((name) => name.startsWith("assets/"));
      const shipped = readdirSync(PUBLIC, { recursive: true, withFileTypes: true })
        .filter((file) => file.isFile())
        .map((file) => relative(PUBLIC, `${file.parentPath}/${file.name}`));
      const first = ["./", ...built.filter((name) => !name.includes("ort-wasm")), ...shipped];
      const source = readFileSync(new URL("src/service-worker.js", import.meta.url), "utf8")
        .replace("[/* kept from the start */]", JSON.stringify(first))
        .replace("[/* built files */]", JSON.stringify(built));
      this.emitFile({ type: "asset", fileName: "service-worker.js", source });
      this.emitFile({ type: "asset", fileName: "licences.txt", source: licences(new URL(".", import.meta.url)) });
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [besideThePage()],
  build: { target: "es2023", assetsInlineLimit: 0, chunkSizeWarningLimit: 1000, modulePreload: false },
  worker: { format: "es" },
  server: { headers: HEADERS },
  preview: { headers: HEADERS },
  test: { include: ["tests/*.test.ts"], testTimeout: 120_000, hookTimeout: 120_000 },
} as import("vite").UserConfig & { test: unknown });
