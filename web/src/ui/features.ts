// SPDX-License-Identifier: Apache-2.0
/** The right pane: features as colours, and how like all patches are to the one that is pointed at. */

import type { App } from "../app";
import { PATCH } from "../compute/windows";
import { button, element } from "./dom";
import { announce, tell } from "./messages";
import { Pane } from "./pane";
import type { Scene } from "./scene";
import type { Tools } from "./tools";
import type { Viewport } from "./viewport";

const COLOURS_ONLY = "NoPE"; // of which the examples have no features

export function featuresPane(app: App, scene: Scene, tools: Tools, viewport: Viewport): Pane {
  const canvas = element("features-canvas", HTMLCanvasElement);
  const query = (x: number, y: number) => {
    const [row, column] = [Math.floor(y / PATCH), Math.floor(x / PATCH)];
    const { features } = app;
    if (!features || row < 0 || column < 0 || row >= features.height || column >= features.width) return;
    if (app.query?.row === row && app.query.column === column) return;
    if (app.model === COLOURS_ONLY) {
      tell("note", `Of ${COLOURS_ONLY} the examples have colours only, so there is no likeness to show.`, "colours");
      return;
    }
    void app.showSimilarity({ row, column });
    announce(`How like all patches are to the one in row ${row + 1}, column ${column + 1}.`);
  };
  const pane: Pane = new Pane(
    canvas,
    viewport,
    { start: query, move: query, end: () => {}, cancel: () => {}, isPanning: () => tools.isPanning },
    (context) => scene.paintFeatures(context, app, viewport),
  );
  canvas.addEventListener("keydown", (event) => {
    if (app.opened && pane.moveCursor(event, PATCH, app.opened.raster)) return;
    if (event.key === "Enter") query(pane.cursor.x, pane.cursor.y);
    if (event.key === "Escape") void app.showSimilarity();
  });

  button("show-colours").addEventListener("click", () => void app.showSimilarity());
  for (const radio of modelRadios()) {
    radio.addEventListener("change", () => {
      if (radio.value === COLOURS_ONLY) app.query = undefined;
      void app.showModel(radio.value);
    });
  }
  return pane;
}

/** Show which models there are features of, and what is seen of them. */
export function refreshFeatures({ opened, model, query }: App): void {
  for (const radio of modelRadios()) {
    radio.disabled = !opened?.models.includes(radio.value);
    radio.checked = radio.value === model;
    const missing = radio.value === "ALiBi" ? "Being computed" : "Only of the examples";
    radio.parentElement!.title = radio.disabled ? missing : "";
  }
  button("show-colours").hidden = !query;
  element("features-title", HTMLElement).textContent = query ? "Likeness" : "Features";
}

function modelRadios(): NodeListOf<HTMLInputElement> {
  return document.querySelectorAll<HTMLInputElement>("input[name=model]");
}
