// SPDX-License-Identifier: Apache-2.0
/** Which part of a picture is seen, and how large; the same for all panes. */

const LARGEST = 64; // screen pixels for a pixel of the picture
const MARGIN = 32; // screen pixels of the picture that stay in sight

export class Viewport {
  /** Screen pixels (of CSS) for a pixel of the picture. */
  scale = 1;
  /** Where the picture's corner lies in a pane. */
  x = 0;
  y = 0;
  private picture = { width: 1, height: 1 };
  private pane = { width: 1, height: 1 };
  private readonly listeners: (() => void)[] = [];

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  /** The size of the panes has changed. */
  resize(width: number, height: number): void {
    const whole = this.isFitted;
    this.pane = { width, height };
    if (whole) this.fit();
    else this.changed();
  }

  /** Show all of a picture. */
  show(width: number, height: number): void {
    this.picture = { width, height };
    this.fit();
  }

  fit(): void {
    this.scale = this.fitting;
    this.x = (this.pane.width - this.picture.width * this.scale) / 2;
    this.y = (this.pane.height - this.picture.height * this.scale) / 2;
    this.changed();
  }

  /** Zoom by a factor; what is at a place of the pane, in its middle if none is given, stays there. */
  zoom(factor: number, x = this.pane.width / 2, y = this.pane.height / 2): void {
    const scale = Math.min(Math.max(this.scale * factor, Math.min(this.fitting / 2, 1)), LARGEST);
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.changed();
  }

  pan(right: number, down: number): void {
    this.x += right;
    this.y += down;
    this.changed();
  }

  /** Move as little as needed to have a place of the picture in sight. */
  reveal(x: number, y: number): void {
    const inside = (place: number, length: number) =>
      Math.min(Math.max(place, MARGIN), Math.max(length - MARGIN, MARGIN));
    const [px, py] = [this.x + x * this.scale, this.y + y * this.scale];
    this.pan(inside(px, this.pane.width) - px, inside(py, this.pane.height) - py);
  }

  /** Pixels of a pane -> those of the picture. */
  toPicture(x: number, y: number): { x: number; y: number } {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  private get fitting(): number {
    return Math.min(this.pane.width / this.picture.width, this.pane.height / this.picture.height);
  }

  private get isFitted(): boolean {
    return Math.abs(this.scale - this.fitting) < 1e-6 * this.scale;
  }

  private changed(): void {
    const keep = (place: number, size: number, length: number) =>
      Math.min(Math.max(place, MARGIN - size), length - MARGIN);
    this.x = keep(this.x, this.picture.width * this.scale, this.pane.width);
    this.y = keep(this.y, this.picture.height * this.scale, this.pane.height);
    this.listeners.forEach((listener) => listener());
  }
}
