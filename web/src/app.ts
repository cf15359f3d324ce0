// SPDX-License-Identifier: Apache-2.0
/** The state of the page and what is done with it: an open picture, its strokes, its mask. */

import { proxy, type Remote } from "comlink";
import type { Segmentation } from "./compute/segmentation";
import { whereToDraw, type Place } from "./compute/uncertainty";
import type { Engine, Opened, Picture, Progress } from "./engine";
import { reason } from "./files/open";
import type { ModelSource, Surroundings } from "./model-files";
import { Marks } from "./ui/marks";

/** What the page shows when something has changed. */
export interface AppEvents {
  opened(picture: Opened): void;
  analysed(milliseconds: number): void;
  marked(): void;
  segmented(milliseconds: number): void;
  features(): void;
  progress(progress: Progress): void;
  state(text: string): void;
  failed(text: string): void;
}

export class App {
  name = "";
  slice = 0;
  opened?: Opened;
  marks = new Marks(1, 1);
  segmentation?: Segmentation;
  places: Place[] = [];
  /** Whether all features of the picture are there. */
  ready = false;
  /** Whether there are strokes that were not saved. */
  unsaved = false;
  model = "ALiBi";
  /** Features of `model` as a picture: colours, or how like they are to `query`. */
  features?: Picture;
  query?: { row: number; column: number };
  private segmenting = false;
  private again = false;

  constructor(
    private readonly engine: Remote<Engine>,
    private readonly source: ModelSource,
    private readonly around: Surroundings,
    private readonly events: AppEvents,
  ) {}

  openFile(file: File): Promise<void> {
    return this.open(file.name, 0, () => this.engine.open(file));
  }

  openExample(name: string, file: string): Promise<void> {
    return this.open(file, 0, () => this.engine.openExample(document.baseURI, name));
  }

  openSlice(index: number): Promise<void> {
    return this.open(this.name, index, () => this.engine.slice(index));
  }

  private async open(name: string, slice: number, read: () => Promise<Opened>): Promise<void> {
    let opened: Opened;
    try {
      opened = await read();
    } catch (error) {
      this.events.failed(`${reason(error)}.`);
      return;
    }
    const { width, height } = opened.raster;
    Object.assign(this, { name, slice, opened, marks: new Marks(width, height), segmentation: undefined, places: [] });
    Object.assign(this, { ready: false, unsaved: false, features: undefined, query: undefined });
    this.model = opened.models[0] ?? "ALiBi";
    this.events.opened(opened);
    await this.showFeatures();
    await this.analyse();
  }

  /** Compute the features; what was marked meanwhile is segmented then. */
  async analyse(): Promise<void> {
    let took: number | undefined;
    try {
      const report = proxy((progress: Progress) => this.events.progress(progress));
      took = await this.engine.analyse(this.source, this.around, report);
    } catch (error) {
      this.events.state("There are no features.");
      this.events.failed(
        `The features could not be computed: ${reason(error)}. Open the image again to try once more.`,
      );
      return;
    }
    if (took === undefined) return; // another picture was opened
    this.ready = true;
    this.opened!.models = await this.engine.models();
    this.model = "ALiBi";
    this.events.analysed(took);
    await this.showFeatures();
    await this.segment();
  }

  /** The strokes have changed. */
  async marked(): Promise<void> {
    this.unsaved = true;
    this.places = [];
    this.events.marked();
    await this.segment();
  }

  /** Learn and classify; if strokes change meanwhile, once more afterwards. */
  private async segment(): Promise<void> {
    if (!this.ready) return;
    if (this.segmenting) {
      this.again = true;
      return;
    }
    if (this.marks.used.length < 2) {
      this.segmentation = undefined;
      this.events.segmented(0);
      return;
    }
    this.segmenting = true;
    const marks = this.marks;
    const start = performance.now();
    try {
      const found = await this.engine.segment(marks.labels);
      if (marks === this.marks) {
        this.segmentation = found;
        this.events.segmented(performance.now() - start);
      }
    } catch (error) {
      this.events.failed(`The strokes could not be learned from: ${reason(error)}.`);
    } finally {
      this.segmenting = false;
    }
    if (this.again) {
      this.again = false;
      await this.segment();
    }
  }

  async showModel(model: string): Promise<void> {
    this.model = model;
    await this.showFeatures();
  }

  /** Show how like all patches are to one; colours again without one. */
  async showSimilarity(query?: { row: number; column: number }): Promise<void> {
    this.query = query;
    await this.showFeatures();
  }

  private async showFeatures(): Promise<void> {
    const { model, query, opened } = this;
    if (!opened?.models.includes(model)) return;
    const picture = await (query ? this.engine.similarity(model, query.row, query.column) : this.engine.colours(model));
    if (opened !== this.opened || model !== this.model || query !== this.query) return;
    this.features = picture;
    this.events.features();
  }

  /** Where the next strokes help most. */
  suggest(): Place[] {
    if (this.segmentation) {
      this.places = whereToDraw(this.segmentation.uncertainty, this.marks.labels, this.marks.width);
    }
    return this.places;
  }

  /** Take labels from a file in the place of the strokes; what was there can be had again by undoing. */
  async loadLabels(file: File): Promise<void> {
    try {
      this.marks.replace(await this.engine.labels(file));
    } catch (error) {
      this.events.failed(`${reason(error)}.`);
      return;
    }
    await this.marked();
  }
}
