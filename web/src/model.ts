// SPDX-License-Identifier: Apache-2.0
/** The model in the browser: where its files come from, what it runs on, features of a window. */

import { AutoModel, env, Tensor, type PreTrainedModel, type ProgressInfo } from "@huggingface/transformers";
import { modelFiles, type ModelSource, type Surroundings } from "./model-files";
import { WINDOW, PATCH } from "./compute/windows";

export interface Normalisation {
  mean: number[];
  std: number[];
}

const MOST_THREADS = 8;
const WARM = 8 * PATCH; // pixels, side of a first picture: browsers compile what runs often once more, and better

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
    source: ModelSource,
    around: Surroundings,
    progress: (loaded: number, total: number) => void,
  ): Promise<Model> {
    const { device, threads } = around;
    const { folder, dtype, factory, runtime } = modelFiles(source, around);
    const local = source.path !== undefined;
    env.allowLocalModels = local;
    env.allowRemoteModels = !local;
    if (local) env.localModelPath = new URL("..", folder).pathname;
    // What comes from this server is kept by the service worker; once is enough.
    env.useBrowserCache = !local;
    env.useWasmCache = false;
    const wasm = env.backends.onnx.wasm!;
    wasm.numThreads = threads;
    wasm.wasmPaths = { mjs: factory, wasm: runtime };
    const loaded = await AutoModel.from_pretrained(source.model, {
      device,
      dtype,
      progress_callback: (info: ProgressInfo) => {
        if (info.status === "progress" && info.file.endsWith(".onnx")) progress(info.loaded, info.total);
      },
    });
    const answer = await fetch(`${folder}preprocessor_config.json`);
    if (!answer.ok) throw new Error(`${source.model} has no preprocessor_config.json (${answer.status})`);
    const found = new Model(loaded, await answer.json());
    (await found.tokens(new Float32Array(3 * WARM ** 2), WARM)).dispose();
    return found;
  }

  private async tokens(pixels: Float32Array, side: number): Promise<Tensor> {
    const output = await this.model({ pixel_values: new Tensor("float32", pixels, [1, 3, side, side]) });
    return output.last_hidden_state;
  }

  /** Features of the patches of a window, row by row, of its pixels `3 · 518 · 518`. */
  async features(pixels: Float32Array): Promise<{ features: Float32Array; channels: number }> {
    const tokens = await this.tokens(pixels, WINDOW * PATCH);
    const [, count, channels] = tokens.dims;
    const patches = WINDOW * WINDOW;
    // Whatever comes before the patches, such as [CLS], is left out.
    const features = Float32Array.from(tokens.data.subarray((count - patches) * channels) as Float32Array);
    tokens.dispose();
    if (!features.every(Number.isFinite)) throw new Error("the model gave features that are NaN or infinite");
    return { features, channels };
  }
}
