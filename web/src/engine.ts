// SPDX-License-Identifier: Apache-2.0
/** The worker: everything that takes time happens here, so that the page stays quick. */

import { expose, transfer } from "comlink";
import { aligned, componentColours, principalComponents, similarity, similarityColours } from "./compute/colours";
import { classicalFeatures } from "./compute/classical";
import { DeepFeatures } from "./compute/deep";
import { hasColour, reduceLabels, shrink, type Raster } from "./compute/raster";
import { Segmenter, type Segmentation } from "./compute/segmentation";
import { windowPixels, windowsOf, type Grid } from "./compute/windows";
import { openExample, type Precomputed } from "./files/example";
import { openImage } from "./files/open";
import { labels, seen, type ImageFile } from "./files/stored";
import { Model, surroundings } from "./model";
import type { ModelSource, Surroundings } from "./model-files";

// Planes of a grey picture of two megapixels take 290 MB.
const MOST_PIXELS = 2 ** 21;

export interface Progress {
  task: string;
  done: number;
  total: number;
}

/** A picture as it is shown and segmented; its file may have `step` times as many pixels along each axis. */
export interface Opened {
  raster: Raster;
  step: number;
  fullWidth: number;
  fullHeight: number;
  slices: number;
  notes: string[];
  models: string[];
}

export interface Picture {
  width: number;
  height: number;
  rgba: Uint8ClampedArray<ArrayBuffer>;
}

class Superseded extends Error {}

/** Name of the model that runs here; of others there are features of the examples. */
const OWN = "ALiBi";

export class Engine {
  private file?: ImageFile;
  private opened?: Opened;
  private model?: Promise<Model>;
  private segmenter?: Segmenter;
  private readonly grids = new Map<string, Grid>();
  /** Goes up with each picture, so that work on one that is gone stops. */
  private turn = 0;

  surroundings(): Promise<Surroundings> {
    return surroundings();
  }

  /** Open a file, and a slice of it; what was there stays if it cannot be read. */
  async open(file: File, slice = 0): Promise<Opened> {
    const found = await openImage(file);
    return this.show(found, slice, file.name);
  }

  /** Open one of the shipped micrographs, with the features that other models have of it. */
  async openExample(address: string, name: string): Promise<Opened> {
    const { file, precomputed } = await openExample(address, name);
    const opened = await this.show(await openImage(file), 0, file.name, precomputed);
    return opened;
  }

  /** Another slice of the open file. */
  async slice(index: number): Promise<Opened> {
    return this.show(this.file!, index, `Slice ${index + 1}`);
  }

  private async show(file: ImageFile, slice: number, name: string, precomputed: Precomputed[] = []): Promise<Opened> {
    const stored = await file.read(slice);
    let found;
    try {
      found = seen(stored);
    } catch (error) {
      throw new Error(`${name}: ${(error as Error).message}.`, { cause: error });
    }
    const { raster: full, notes } = found;
    const most = MOST_PIXELS / (hasColour(full) ? 3 : 1);
    const step = Math.ceil(Math.sqrt((full.width * full.height) / most));
    const raster = shrink(full, step);
    if (step > 1) {
      notes.unshift(
        `The image has ${full.width} × ${full.height} pixels, more than this page can segment. It is seen at 1/${step} ` +
          `of its size, ${raster.width} × ${raster.height}; masks and labels are saved at the full size.`,
      );
    }
    this.turn++;
    this.file = file;
    this.segmenter = undefined;
    this.grids.clear();
    precomputed.forEach(({ model, grid }) => this.grids.set(model, grid));
    this.opened = {
      raster,
      step,
      fullWidth: full.width,
      fullHeight: full.height,
      slices: file.slices,
      notes,
      models: [...this.grids.keys()],
    };
    return this.opened;
  }

  /**
   * Compute all features of the open picture; loads the model first, if this is the first time.
   *
   * @returns milliseconds that it took, less loading the model; none if another picture was opened meanwhile.
   */
  async analyse(
    source: ModelSource,
    around: Surroundings,
    report: (progress: Progress) => void,
  ): Promise<number | undefined> {
    const turn = this.turn;
    const raster = this.opened!.raster;
    try {
      this.model ??= Model.load(source, around, (done, total) =>
        report({ task: "Downloading the model", done, total }),
      );
      this.model.catch(() => (this.model = undefined)); // so that the next picture tries again
      const model = await this.model;
      const start = performance.now();
      const windows = windowsOf(raster);
      const total = windows.length + 1;
      const step = async (done: number, task: string) => {
        report({ task, done, total });
        // Lets messages in, among them that another picture was opened.
        await new Promise((resolve) => setTimeout(resolve));
        if (turn !== this.turn) throw new Superseded();
      };
      let deep: DeepFeatures | undefined;
      for (const [number, window] of windows.entries()) {
        await step(number, "Features of the model");
        const { mean, std } = model.normalisation;
        const { features, channels } = await model.features(windowPixels(raster, window, mean, std));
        deep ??= new DeepFeatures(raster, channels);
        deep.add(features);
      }
      await step(windows.length, "Features of edges and textures");
      const planes = classicalFeatures(raster);
      const { features, components } = deep!.result();
      await step(total, "Features");
      this.grids.set(OWN, features);
      this.segmenter = new Segmenter({ width: raster.width, height: raster.height, planes, grid: components });
      return performance.now() - start;
    } catch (error) {
      if (error instanceof Superseded) return undefined;
      throw error;
    }
  }

  /** Learn from marks, one for each pixel of the picture, and classify all of it. */
  segment(marks: Uint8Array): Segmentation {
    if (!this.segmenter) throw new Error("The features are not there yet.");
    const found = this.segmenter.segment(marks);
    return transfer(found, [found.classes.buffer, found.uncertainty.buffer]);
  }

  /** Of which models there are features of the open picture. */
  models(): string[] {
    return [...this.grids.keys()];
  }

  /** Features of a model as colours; like colours mean like things in all models. */
  colours(model: string): Picture {
    const components = (name: string) => principalComponents(this.grids.get(name)!);
    const [reference] = this.grids.keys();
    const found = components(model);
    return picture(found, componentColours(model === reference ? found : aligned(found, components(reference))));
  }

  /** How like all patches are to one. */
  similarity(model: string, row: number, column: number): Picture {
    const grid = this.grids.get(model)!;
    return picture(grid, similarityColours(similarity(grid, row, column)));
  }

  /** Labels of the open picture from a file of its full size. */
  async labels(file: File): Promise<Uint8Array> {
    const found = await openImage(file);
    const stored = await found.read(0);
    const { raster, step, fullWidth, fullHeight } = this.opened!;
    if (stored.width !== fullWidth || stored.height !== fullHeight) {
      throw new Error(
        `${file.name} has ${stored.width} × ${stored.height} pixels, the image ${fullWidth} × ${fullHeight}. Labels ` +
          "are one number for each pixel of their image.",
      );
    }
    try {
      return reduceLabels(labels(stored), fullWidth, raster.width, raster.height, step);
    } catch (error) {
      throw new Error(`${file.name} holds no labels: ${(error as Error).message}.`, { cause: error });
    }
  }
}

function picture({ rows, columns }: Grid, rgba: Uint8ClampedArray<ArrayBuffer>): Picture {
  return { width: columns, height: rows, rgba };
}

expose(new Engine());
