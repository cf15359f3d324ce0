// SPDX-License-Identifier: Apache-2.0
/** The model in the browser: where its files come from, what it runs on, features of a window. */

import { AutoModel, env, Tensor, type PreTrainedModel, type ProgressInfo } from "@huggingface/transformers";
import plainFactory from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import plainRuntime from "onnxruntime-web/ort-wasm-simd-threaded.wasm?url";
import gpuFactory from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.mjs?url";
import gpuRuntime from "onnxruntime-web/ort-wasm-simd-threaded.asyncify.wasm?url";
import { WINDOW, PATCH } from "./compute/windows";

/** `config.json` beside the page. */
export interface ModelSource {
  /** Name of the model below `path`, or a Hub id. */
  model: string;
  /** Folder of models on this server; without it the model comes from the Hub. */
  path?: string;
}

export type Device = "webgpu" | "wasm";

/** What the model runs on, and what it costs to download. */
export interface Surroundings {
  device: Device;
  threads: number;
  isolated: boolean;
}

export interface Normalisation {
  mean: number[];
  std: number[];
}

const MOST_THREADS = 8;
// Of weights: half precision where there is a graphics processor, 32 bits otherwise, which its cores compute fastest.
const PRECISIONS: Record<Device, "fp16" | "fp32"> = { webgpu: "fp16", wasm: "fp32" };

/** What this browser offers. */
export async function surroundings(): Promise<Surroundings> {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const device = adapter?.features.has("shader-f16") ? "webgpu" : "wasm";
  const isolated = globalThis.crossOriginIsolated;
  return { device, isolated, threads: isolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1 };
}

/** A model that was loaded. */
export class Model {
  readonly normalisation: Normalisation;

  private constructor(
    private readonly model: PreTrainedModel,
    processor: { image_mean: number[]; image_std: number[] },
  ) {
    this.normalisation = { mean: processor.image_mean, std: processor.image_std };
  }

  /**
   * Load weights and runtime.
   *
   * @param progress is told bytes that have come, and of how many.
   * @throws Error the files are not there, or no model.
   */
  static async load(
    { model, path }: ModelSource,
    { device, threads }: Surroundings,
    progress: (loaded: number, total: number) => void,
  ): Promise<Model> {
    const local = path !== undefined;
    env.allowLocalModels = local;
    env.allowRemoteModels = !local;
    if (local) env.localModelPath = new URL(path, self.location.href).pathname;
    // What comes from this server is kept by the service worker; once is enough.
    env.useBrowserCache = !local;
    env.useWasmCache = false;
    const wasm = env.backends.onnx.wasm!;
    wasm.numThreads = threads;
    const gpu = device === "webgpu";
    wasm.wasmPaths = {
      mjs: new URL(gpu ? gpuFactory : plainFactory, self.location.href).href,
      wasm: new URL(gpu ? gpuRuntime : plainRuntime, self.location.href).href,
    };
    const loaded = await AutoModel.from_pretrained(model, {
      device,
      dtype: PRECISIONS[device],
      progress_callback: (info: ProgressInfo) => {
        if (info.status === "progress" && info.file.endsWith(".onnx")) progress(info.loaded, info.total);
      },
    });
    const folder = local ? new URL(`${path}${model}/`, self.location.href) : `${env.remoteHost}${model}/resolve/main/`;
    const answer = await fetch(new URL("preprocessor_config.json", folder));
    if (!answer.ok) throw new Error(`${model} has no preprocessor_config.json (${answer.status})`);
    return new Model(loaded, await answer.json());
  }

  /** Features of the patches of a window, row by row, of its pixels `3 · 518 · 518`. */
  async features(pixels: Float32Array): Promise<{ features: Float32Array; channels: number }> {
    const side = WINDOW * PATCH;
    const output = await this.model({ pixel_values: new Tensor("float32", pixels, [1, 3, side, side]) });
    const tokens: Tensor = output.last_hidden_state;
    const [, count, channels] = tokens.dims;
    const patches = WINDOW * WINDOW;
    // Whatever comes before the patches, such as [CLS], is left out.
    const features = Float32Array.from(tokens.data.subarray((count - patches) * channels) as Float32Array);
    tokens.dispose();
    if (!features.every(Number.isFinite)) throw new Error("the model gave features that are NaN or infinite");
    return { features, channels };
  }
}
