// SPDX-License-Identifier: Apache-2.0
/** Which files the model is, for what a browser offers; known to the page as well as to its worker. */

import plainFactory from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import plainRuntime from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import gpuFactory from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import gpuRuntime from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";

/** `config.json` beside the page. */
export interface ModelSource {
  /** Name of the model below `path`, or a Hub id. */
  model: string;
  /** Folder of models on this server, ending in a slash; without it the model comes from the Hub. */
  path?: string;
}

export type Device = "webgpu" | "wasm";

/** What the model can run on. */
export interface Surroundings {
  device: Device;
  threads: number;
  /** Whether the page was served with the headers that threads need. */
  isolated: boolean;
}

const HUB = "https://huggingface.co/";
// Half precision where there is a graphics processor, 8 bits otherwise: a quarter of the download, and the same masks.
const PRECISIONS = {
  webgpu: { dtype: "fp16", file: "model_fp16.onnx" },
  wasm: { dtype: "q8", file: "model_quantized.onnx" },
} as const;
const RUNTIMES = {
  webgpu: { factory: gpuFactory, runtime: gpuRuntime },
  wasm: { factory: plainFactory, runtime: plainRuntime },
};

/** Addresses of a model's files, and of those of what runs it. */
export function modelFiles({ model, path }: ModelSource, { device }: { device: Device }) {
  const base = globalThis.document?.baseURI ?? new URL("..", globalThis.location.href).href;
  const folder = path === undefined ? `${HUB}${model}/resolve/main/` : new URL(`${path}${model}/`, base).href;
  const { factory, runtime } = RUNTIMES[device];
  return {
    folder,
    weights: `${folder}onnx/${PRECISIONS[device].file}`,
    dtype: PRECISIONS[device].dtype,
    factory: new URL(factory, import.meta.url).href,
    runtime: new URL(runtime, import.meta.url).href,
  };
}
