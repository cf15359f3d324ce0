// SPDX-License-Identifier: Apache-2.0
/** The left pane: the picture, drawn on with the pointer or with the keyboard. */

import type { App } from "../app";
import type { Classes } from "./classes";
import { element } from "./dom";
import { Pane } from "./pane";
import type { Scene } from "./scene";
import type { Tools } from "./tools";
import type { Viewport } from "./viewport";

export function drawingPane(app: App, scene: Scene, classes: Classes, tools: Tools, viewport: Viewport): Pane {
  const canvas = element("image-canvas", HTMLCanvasElement);
  const draw = (x: number, y: number) => {
    if (!app.opened) return;
    const region = app.marks.drawTo(x, y, tools.radius, tools.tool === "eraser" ? 0 : classes.selected);
    scene.marksChanged(app, classes, region);
    pane.redraw();
  };
  const end = () => {
    if (app.marks.end()) void app.marked();
  };
  const cancel = () => {
    if (app.marks.end()) app.marks.undo();
    scene.marksChanged(app, classes);
    pane.redraw();
  };
  const pane: Pane = new Pane(
    canvas,
    viewport,
    { start: draw, move: draw, end, cancel, isPanning: () => tools.isPanning },
    (context) => scene.paintImage(context, app, viewport, tools.isPanning ? undefined : pane.hover, tools.radius),
  );

  canvas.addEventListener("keydown", (event) => {
    const moved =
      app.opened !== undefined && pane.moveCursor(event, Math.max(Math.round(tools.radius), 1), app.opened.raster);
    if (event.key === " ") {
      event.preventDefault();
      tools.isSpaceDown = true;
    }
    // The space bar draws at the crosshair; if none is seen, a mouse is used, and it moves the picture.
    if (tools.isSpaceDown && pane.isCursorSeen && (moved || event.key === " ")) draw(pane.cursor.x, pane.cursor.y);
  });
  document.addEventListener("keyup", (event) => {
    if (event.key !== " ") return;
    tools.isSpaceDown = false;
    end();
  });
  return pane;
}
