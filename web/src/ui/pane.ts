// SPDX-License-Identifier: Apache-2.0
/** A canvas that shows a picture through a viewport: drawn with layers, drawn on with mouse, pen, finger and keys. */

import { arrow } from "./keys";
import type { Viewport } from "./viewport";

/** What a pane tells of: places are in pixels of the picture. */
export interface PaneEvents {
  /** A stroke or a click begins, goes on, ends. Not called while the view is moved. */
  start(x: number, y: number): void;
  move(x: number, y: number): void;
  end(): void;
  /** The second finger came: what was begun was not meant. */
  cancel(): void;
  /** Whether the pointer moves the picture now, instead. */
  isPanning(): boolean;
}

const WHEEL = 0.0015; // of zoom for each pixel that a wheel turns
const CURSOR = 9; // screen pixels, half the length of the crosshair's lines

export class Pane {
  private readonly context: CanvasRenderingContext2D;
  private readonly pointers = new Map<number, { x: number; y: number }>();
  private mode: "idle" | "drawing" | "panning" = "idle";
  private requested = false;
  /** Where the crosshair of the keyboard is, in pixels of the picture; it is seen once a key has moved it. */
  cursor = { x: 0, y: 0 };
  isCursorSeen = false;
  /** Where the mouse is, in pixels of the picture. */
  hover?: { x: number; y: number };

  constructor(
    private readonly canvas: HTMLCanvasElement,
    readonly viewport: Viewport,
    private readonly events: PaneEvents,
    private readonly paint: (context: CanvasRenderingContext2D) => void,
  ) {
    this.context = canvas.getContext("2d")!;
    viewport.onChange(() => this.redraw());
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    for (const name of ["pointerup", "pointercancel"] as const)
      canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => {
      this.hover = undefined;
      this.redraw();
    });
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("focus", () => this.redraw());
    canvas.addEventListener("blur", () => this.redraw());
    this.resize();
  }

  /** Draw at the next frame. */
  redraw(): void {
    if (this.requested) return;
    this.requested = true;
    requestAnimationFrame(() => {
      this.requested = false;
      this.draw();
    });
  }

  /** Move the crosshair if an arrow key was pressed; tells whether it was. */
  moveCursor(event: KeyboardEvent, step: number, picture: { width: number; height: number }): boolean {
    const moved = arrow(event, step);
    if (!moved) return false;
    event.preventDefault();
    this.isCursorSeen = true;
    const inside = (place: number, length: number) => Math.min(Math.max(place, 0), length - 1);
    this.cursor = {
      x: inside(this.cursor.x + moved[0], picture.width),
      y: inside(this.cursor.y + moved[1], picture.height),
    };
    this.viewport.reveal(this.cursor.x, this.cursor.y);
    return true;
  }

  private draw(): void {
    const { context, viewport, canvas } = this;
    const ratio = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(viewport.scale * ratio, 0, 0, viewport.scale * ratio, viewport.x * ratio, viewport.y * ratio);
    // Pixels stay squares, that one sees which of them is marked.
    context.imageSmoothingEnabled = viewport.scale < 1;
    this.paint(context);
    if (this.isCursorSeen && document.activeElement === canvas) this.crosshair(this.cursor);
  }

  private crosshair({ x, y }: { x: number; y: number }): void {
    const { context, viewport } = this;
    const half = CURSOR / viewport.scale;
    for (const [colour, width] of [
      ["#000", 4],
      ["#fff", 2],
    ] as const) {
      context.strokeStyle = colour;
      context.lineWidth = width / viewport.scale;
      context.beginPath();
      context.moveTo(x - half, y);
      context.lineTo(x + half, y);
      context.moveTo(x, y - half);
      context.lineTo(x, y + half);
      context.stroke();
    }
  }

  private resize(): void {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (width === 0 || height === 0) return; // not laid out
    this.canvas.width = Math.round(width * devicePixelRatio);
    this.canvas.height = Math.round(height * devicePixelRatio);
    this.viewport.resize(width, height);
    this.redraw();
  }

  private place(event: MouseEvent): { x: number; y: number } {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  private inPicture(event: MouseEvent): { x: number; y: number } {
    const { x, y } = this.place(event);
    return this.viewport.toPicture(x, y);
  }

  private down(event: PointerEvent): void {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.isCursorSeen = false;
    if (this.pointers.size > 1) {
      if (this.mode === "drawing") this.events.cancel();
      this.mode = "panning";
      return;
    }
    if (event.button === 1 || event.button === 2 || this.events.isPanning()) this.mode = "panning";
    else {
      this.mode = "drawing";
      const { x, y } = this.inPicture(event);
      this.cursor = { x, y };
      this.events.start(x, y);
    }
  }

  private moved(event: PointerEvent): void {
    this.hover = event.pointerType === "touch" ? undefined : this.inPicture(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.redraw();
      return;
    }
    const now = this.place(event);
    if (this.mode === "drawing") {
      // All places that the mouse went through since the last frame, so that quick strokes stay round.
      const through = event.getCoalescedEvents?.() ?? [];
      for (const each of through.length ? through : [event]) {
        const { x, y } = this.inPicture(each);
        this.events.move(x, y);
      }
    } else if (this.mode === "panning") {
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      if (others.length) {
        const [other] = others;
        const distance = (place: { x: number; y: number }) =>
          Math.max(Math.hypot(place.x - other.x, place.y - other.y), 1);
        this.viewport.zoom(distance(now) / distance(before), other.x, other.y);
      } else this.viewport.pan(now.x - before.x, now.y - before.y);
    }
    this.pointers.set(event.pointerId, now);
  }

  private up(event: PointerEvent): void {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.mode === "drawing") {
      if (event.type === "pointercancel") this.events.cancel();
      else this.events.end();
    }
    if (this.pointers.size === 0) this.mode = "idle";
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    const { x, y } = this.place(event);
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    this.viewport.zoom(Math.exp(-event.deltaY * lines * WHEEL), x, y);
  }
}
