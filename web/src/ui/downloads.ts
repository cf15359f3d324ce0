// SPDX-License-Identifier: Apache-2.0
/** Where the model comes from, what is downloaded and how large it is, and what this browser lacks. */

import { modelFiles, type ModelSource, type Surroundings } from "../model-files";
import { element, megabytes } from "./dom";
import { tell } from "./messages";

/** `config.json` beside the page says which model it uses. */
export async function readSource(): Promise<ModelSource> {
  const answer = await fetch("config.json");
  if (!answer.ok) throw new Error(`config.json cannot be fetched (${answer.status})`);
  return answer.json();
}

/** Say what is downloaded, and what is missing here that would make it faster. */
export async function describeDownloads(source: ModelSource, around: Surroundings): Promise<void> {
  const { weights, runtime } = modelFiles(source, around);
  const [ofWeights, ofRuntime] = await Promise.all([size(weights), size(runtime)]);
  const on =
    around.device === "webgpu" ? "the graphics processor" : `${around.threads} thread${around.threads > 1 ? "s" : ""}`;
  element("downloads", HTMLParagraphElement).textContent =
    `Downloads once, then works offline: model ${source.model} ${ofWeights}, runtime ${ofRuntime}. Runs on ${on}.`;
  if (around.device === "webgpu") return;
  const reasons = [
    "There is no WebGPU here, so the model runs on the processor: features of a megapixel take some ten seconds.",
  ];
  if (!around.isolated) {
    reasons.push(
      "There are no threads either, since the page was served without the headers Cross-Origin-Opener-Policy and " +
        "Cross-Origin-Embedder-Policy: it is several times slower. `alibi-dinov2 app` serves it with them.",
    );
  }
  tell(around.isolated ? "note" : "warning", reasons.join(" "), "surroundings");
}

async function size(address: string): Promise<string> {
  const answer = await fetch(address, { method: "HEAD" }).catch(() => undefined);
  const bytes = Number(answer?.headers.get("x-linked-size") ?? answer?.headers.get("content-length"));
  return answer?.ok && bytes ? megabytes(bytes) : "of unknown size";
}

/** Have the service worker in charge before anything large is fetched, so that it keeps that for offline use. */
export async function keepForOffline(): Promise<void> {
  if (!import.meta.env.PROD || !("serviceWorker" in navigator)) return;
  try {
    await navigator.serviceWorker.register("service-worker.js");
  } catch (error) {
    tell("note", `The page will not work offline: ${(error as Error).message}`, "offline");
    return;
  }
  if (navigator.serviceWorker.controller) return;
  await new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
}
