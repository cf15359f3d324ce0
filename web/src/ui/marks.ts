// SPDX-License-Identifier: Apache-2.0
/** The strokes on a picture: a label for each pixel, 0 for none, with everything that was done to be undone. */

interface Change {
  pixels: Uint32Array;
  before: Uint8Array;
  after: Uint8Array;
}

/** A part of the picture, in pixels; right and bottom lie outside. */
export interface Region {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

const REMEMBERED = 100; // changes

export class Marks {
  readonly labels: Uint8Array<ArrayBuffer>;
  private readonly done: Change[] = [];
  private readonly undone: Change[] = [];
  /** Pixels of the stroke that is being drawn, and what they were before. */
  private stroke?: Map<number, number>;
  private last?: { x: number; y: number };

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.labels = new Uint8Array(width * height);
  }

  /** The whole picture. */
  get all(): Region {
    return { left: 0, top: 0, right: this.width, bottom: this.height };
  }

  get canUndo(): boolean {
    return this.done.length > 0;
  }

  get canRedo(): boolean {
    return this.undone.length > 0;
  }

  /** Labels that occur, ascending. */
  get used(): number[] {
    return [...new Set(this.labels)].filter((label) => label > 0).sort((a, b) => a - b);
  }

  /** Draw on to a place, in pixels, from where the stroke was before; label 0 erases. Gives what may have changed. */
  drawTo(x: number, y: number, radius: number, label: number): Region {
    this.stroke ??= new Map();
    const from = this.last ?? { x, y };
    const steps = Math.max(Math.ceil(Math.hypot(x - from.x, y - from.y) / Math.max(radius / 2, 0.5)), 1);
    for (let step = 1; step <= steps; step++) {
      const share = step / steps;
      this.disc(from.x + (x - from.x) * share, from.y + (y - from.y) * share, radius, label);
    }
    this.last = { x, y };
    const reach = radius + 1;
    return {
      left: Math.max(Math.floor(Math.min(from.x, x) - reach), 0),
      top: Math.max(Math.floor(Math.min(from.y, y) - reach), 0),
      right: Math.min(Math.ceil(Math.max(from.x, x) + reach), this.width),
      bottom: Math.min(Math.ceil(Math.max(from.y, y) + reach), this.height),
    };
  }

  /** End the stroke; tells whether it changed anything. */
  end(): boolean {
    const { stroke } = this;
    this.stroke = this.last = undefined;
    return stroke !== undefined && this.remember(stroke);
  }

  /** Other labels for all pixels, as one change. */
  replace(labels: Uint8Array): boolean {
    this.end();
    const before = new Map<number, number>();
    labels.forEach((label, pixel) => {
      if (label === this.labels[pixel]) return;
      before.set(pixel, this.labels[pixel]);
      this.labels[pixel] = label;
    });
    return this.remember(before);
  }

  /** Take back the last change. */
  undo(): boolean {
    return this.move(this.done, this.undone, (change) => change.before);
  }

  /** Do again what was taken back last. */
  redo(): boolean {
    return this.move(this.undone, this.done, (change) => change.after);
  }

  private move(from: Change[], to: Change[], values: (change: Change) => Uint8Array): boolean {
    this.end();
    const change = from.pop();
    if (!change) return false;
    change.pixels.forEach((pixel, index) => (this.labels[pixel] = values(change)[index]));
    to.push(change);
    return true;
  }

  private remember(before: Map<number, number>): boolean {
    const pixels = Uint32Array.from(
      [...before].filter(([pixel, label]) => this.labels[pixel] !== label),
      ([pixel]) => pixel,
    );
    if (pixels.length === 0) return false;
    this.done.push({
      pixels,
      before: Uint8Array.from(pixels, (pixel) => before.get(pixel)!),
      after: Uint8Array.from(pixels, (pixel) => this.labels[pixel]),
    });
    if (this.done.length > REMEMBERED) this.done.shift();
    this.undone.length = 0;
    return true;
  }

  private disc(x: number, y: number, radius: number, label: number): void {
    for (
      let row = Math.max(Math.ceil(y - radius - 0.5), 0);
      row <= Math.min(y + radius - 0.5, this.height - 1);
      row++
    ) {
      const half = Math.sqrt(Math.max(radius ** 2 - (row + 0.5 - y) ** 2, 0));
      const first = Math.max(Math.ceil(x - half - 0.5), 0);
      const last = Math.min(Math.floor(x + half - 0.5), this.width - 1);
      for (let column = first; column <= last; column++) this.set(row * this.width + column, label);
    }
    // Even the finest brush marks the pixel that it is on.
    const [row, column] = [Math.floor(y), Math.floor(x)];
    if (row >= 0 && row < this.height && column >= 0 && column < this.width) this.set(row * this.width + column, label);
  }

  private set(pixel: number, label: number): void {
    if (this.labels[pixel] === label) return;
    if (!this.stroke!.has(pixel)) this.stroke!.set(pixel, this.labels[pixel]);
    this.labels[pixel] = label;
  }
}
