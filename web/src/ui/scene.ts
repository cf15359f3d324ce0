// SPDX-License-Identifier: Apache-2.0
/** What the two panes show: the picture under mask and strokes, and features as colours. */

import type { App } from "../app";
import { PLACE } from "../compute/uncertainty";
import { PATCH } from "../compute/windows";
import type { Opened } from "../engine";
import type { Classes } from "./classes";
import { canvasOf, create, element } from "./dom";
import { paintLabels, rgbaOf, uncertainCanvas } from "./layers";
import type { Region } from "./marks";
import type { Viewport } from "./viewport";

const STROKES = 0.9; // opacity

export class Scene {
  private image?: HTMLCanvasElement;
  private mask?: HTMLCanvasElement;
  private uncertain?: HTMLCanvasElement;
  private strokes?: HTMLCanvasElement;
  private features?: HTMLCanvasElement;

  show({ raster }: Opened): void {
    const { width, height } = raster;
    this.image = canvasOf(rgbaOf(raster), width, height);
    this.strokes = create("canvas", { width, height });
    this.mask = this.uncertain = this.features = undefined;
  }

  /** Strokes have changed, in a part of the picture or anywhere. */
  marksChanged({ marks }: App, classes: Classes, region: Region = marks.all): void {
    const context = this.strokes?.getContext("2d");
    if (context) paintLabels(context, marks.labels, marks.width, region, (label) => classes.colour(label));
  }

  maskChanged({ segmentation, marks }: App, classes: Classes): void {
    const { width, height } = marks;
    this.mask = segmentation && create("canvas", { width, height });
    const context = this.mask?.getContext("2d");
    if (segmentation && context) {
      paintLabels(context, segmentation.classes, width, marks.all, (label) => classes.colour(label));
    }
    this.uncertain = segmentation && uncertainCanvas(segmentation.uncertainty, width, height);
  }

  featuresChanged({ features }: App): void {
    this.features = features && canvasOf(features.rgba, features.width, features.height);
  }

  /** Draw the left pane. */
  paintImage(
    context: CanvasRenderingContext2D,
    app: App,
    viewport: Viewport,
    brush: { x: number; y: number } | undefined,
    radius: number,
  ): void {
    if (!this.image) return;
    const layer = (canvas: HTMLCanvasElement | undefined, opacity: number) => {
      if (!canvas) return;
      context.globalAlpha = opacity;
      context.drawImage(canvas, 0, 0);
      context.globalAlpha = 1;
    };
    layer(this.image, 1);
    layer(this.mask, Number(element("opacity", HTMLInputElement).value) / 100);
    if (element("show-uncertain", HTMLInputElement).checked) layer(this.uncertain, 1);
    if (element("show-strokes", HTMLInputElement).checked) layer(this.strokes, STROKES);
    app.places.forEach(({ row, column }, index) => {
      const side = Math.min(PLACE, app.marks.width, app.marks.height);
      outlined(context, viewport, () => context.rect(column - side / 2, row - side / 2, side, side));
      context.font = `${14 / viewport.scale}px sans-serif`;
      context.fillStyle = "#fff";
      context.fillText(`${index + 1}`, column - side / 2 + 4 / viewport.scale, row - side / 2 + 16 / viewport.scale);
    });
    if (brush)
      outlined(context, viewport, () => context.arc(brush.x, brush.y, Math.max(radius, 0.5), 0, 2 * Math.PI), 1);
  }

  /** Draw the right pane. */
  paintFeatures(context: CanvasRenderingContext2D, app: App, viewport: Viewport): void {
    if (!this.image || !app.opened) return;
    const { width, height } = app.opened.raster;
    if (!this.features || !app.features) {
      context.globalAlpha = 0.35;
      context.drawImage(this.image, 0, 0);
      context.globalAlpha = 1;
      return;
    }
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip(); // the last patches may reach beyond the picture
    context.imageSmoothingEnabled = false;
    context.drawImage(this.features, 0, 0, app.features.width * PATCH, app.features.height * PATCH);
    context.restore();
    const { query } = app;
    if (query) outlined(context, viewport, () => context.rect(query.column * PATCH, query.row * PATCH, PATCH, PATCH));
  }
}

/** A line that is seen on dark and on bright. */
function outlined(context: CanvasRenderingContext2D, viewport: Viewport, path: () => void, width = 2): void {
  for (const [colour, extra] of [
    ["#000", 2],
    ["#fff", 0],
  ] as const) {
    context.beginPath();
    path();
    context.strokeStyle = colour;
    context.lineWidth = (width + extra) / viewport.scale;
    context.stroke();
  }
}
