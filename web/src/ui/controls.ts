// SPDX-License-Identifier: Apache-2.0
/** Buttons, sliders and keys, and which of them can be used now. */

import type { App } from "../app";
import type { Classes } from "./classes";
import { button, create, element, input } from "./dom";
import { listen, type Key } from "./keys";
import { tell } from "./messages";
import { saveFractions, saveLabels, saveMask, saveOverlay } from "./saving";
import type { Tools } from "./tools";
import type { Viewport } from "./viewport";

const NEED_MASK = ["save-mask-png", "save-mask-tiff", "save-overlay", "save-fractions", "where-next"];
const NEED_STROKES = ["clear", "save-labels"];
const ZOOM = 1.5;

export function connectControls(
  app: App,
  classes: Classes,
  tools: Tools,
  viewport: Viewport,
  redraw: () => void,
): void {
  const click = (id: string, run: () => void) => button(id).addEventListener("click", run);
  const change = (changed: boolean) => {
    if (changed) void app.marked();
  };
  const undo = () => change(app.marks.undo());
  const redo = () => change(app.marks.redo());
  const help = () => element("help", HTMLDialogElement).showModal();

  element("controls", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
  click("add-class", () => classes.add());
  click("undo", undo);
  click("redo", redo);
  click("clear", () => change(app.marks.replace(new Uint8Array(app.marks.labels.length))));
  click("zoom-in", () => viewport.zoom(ZOOM));
  click("zoom-out", () => viewport.zoom(1 / ZOOM));
  click("zoom-fit", () => viewport.fit());
  click("help-button", help);
  click("where-next", () => {
    const { length } = app.suggest();
    const found = `The mask is least certain in the ${length} squares that are drawn on the image, most in the first.`;
    tell("note", length ? found : "There are strokes everywhere already.", "where");
    redraw();
  });

  click("save-labels", () => {
    saveLabels(app.marks.labels, app.name, app.opened!);
    app.unsaved = false;
  });
  click("save-mask-png", () => saveMask(app.segmentation!.classes, app.name, app.opened!, "png"));
  click("save-mask-tiff", () => saveMask(app.segmentation!.classes, app.name, app.opened!, "tif"));
  click("save-overlay", () =>
    saveOverlay(app.segmentation!.classes, app.name, app.opened!, (label) => classes.colour(label)),
  );
  click("save-fractions", () =>
    saveFractions(app.segmentation!, app.name, app.slice, app.opened!, (label) => classes.name(label)),
  );

  input("opacity").addEventListener("input", () => {
    element("opacity-value", HTMLOutputElement).textContent = `${input("opacity").value} %`;
    redraw();
  });
  for (const id of ["show-strokes", "show-uncertain"]) input(id).addEventListener("change", redraw);
  viewport.onChange(() => {
    element("zoom-value", HTMLOutputElement).textContent = app.opened ? `${Math.round(100 * viewport.scale)} %` : "";
  });

  const toggle = (id: string) => {
    input(id).checked = !input(id).checked;
    redraw();
  };
  const digit = (key: string) => {
    classes.select(Number(key));
  };
  const keys: Key[] = [
    { keys: [..."123456789"], shown: "1 … 9", does: "choose a class", run: digit },
    { keys: ["b"], shown: "B", does: "brush", run: () => tools.choose("brush") },
    { keys: ["e"], shown: "E", does: "eraser", run: () => tools.choose("eraser") },
    { keys: ["h"], shown: "H", does: "move the picture, as do two fingers", run: () => tools.choose("pan") },
    { keys: ["["], shown: "[", does: "narrower brush", run: () => tools.widen(1 / 1.25) },
    { keys: ["]"], shown: "]", does: "wider brush", run: () => tools.widen(1.25) },
    { keys: ["z"], control: true, shift: false, shown: "Ctrl Z", does: "undo", run: undo },
    { keys: ["z"], control: true, shift: true, shown: "Ctrl Shift Z", does: "redo", run: redo },
    { keys: ["y"], control: true, shown: "Ctrl Y", does: "redo", run: redo },
    { keys: ["+", "="], shown: "+", does: "zoom in, as does the wheel", run: () => viewport.zoom(ZOOM) },
    { keys: ["-"], shown: "−", does: "zoom out", run: () => viewport.zoom(1 / ZOOM) },
    { keys: ["0"], shown: "0", does: "show all of the picture", run: () => viewport.fit() },
    { keys: ["s"], shown: "S", does: "show or hide strokes", run: () => toggle("show-strokes") },
    { keys: ["u"], shown: "U", does: "hatch what is uncertain", run: () => toggle("show-uncertain") },
    { keys: ["?"], shown: "?", does: "this help", run: help },
  ];
  listen(keys);
  const onPictures = [
    ["Arrows", "on a picture: move the crosshair, with Shift ten times as far"],
    ["Space", "on the image: draw at the crosshair, or along with it; with the mouse: move the picture"],
    ["Enter", "on the features: what is like the patch under the crosshair"],
  ];
  const rows = [...keys.map(({ shown, does }) => [shown, does]), ...onPictures].map(([key, does]) =>
    create("tr", {}, create("td", {}, create("kbd", { textContent: key })), create("td", { textContent: does })),
  );
  element("keys", HTMLTableSectionElement).append(...rows);
}

/** Enable what can be used now. */
export function refreshControls({ marks, segmentation, opened, ready }: App, classes: Classes, tools: Tools): void {
  button("undo").disabled = !marks.canUndo;
  button("redo").disabled = !marks.canRedo;
  const hasStrokes = marks.used.length > 0;
  for (const id of NEED_STROKES) button(id).disabled = !hasStrokes;
  for (const id of NEED_MASK) button(id).disabled = !segmentation;
  classes.showFractions(segmentation?.counts);
  const waits = opened && !ready && hasStrokes;
  element("busy", HTMLSpanElement).textContent = waits ? "The mask comes with the features." : "";
  for (const canvas of document.querySelectorAll("canvas[tabindex]")) {
    canvas.classList.toggle("panning", tools.tool === "pan");
  }
}
