// SPDX-License-Identifier: Apache-2.0
// An ONNX folder in transformers.js: image -> features, as JSON.
// node transformers_js.mjs LIBRARY MODEL_FOLDER IMAGE DTYPE

import path from "node:path";
import { pathToFileURL } from "node:url";

const [library, folder, image, dtype] = process.argv.slice(2);
const { AutoModel, AutoProcessor, RawImage, env, pipeline } = await import(pathToFileURL(library));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);

const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModel.from_pretrained(name, { dtype });
const { pixel_values } = await processor(await RawImage.read(image));
const { last_hidden_state } = await model({ pixel_values });
const extract = await pipeline("image-feature-extraction", name, { dtype });
const extracted = await extract(image);
console.log(
  JSON.stringify({
    modelClass: model.constructor.name,
    pixels: pixel_values.dims,
    tokens: last_hidden_state.dims,
    features: Array.from(last_hidden_state.data),
    pipeline: Array.from(extracted.data),
  }),
);
