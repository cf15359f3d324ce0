// SPDX-License-Identifier: Apache-2.0
/** The page: its parts, wired. */

import { wrap } from "comlink";
import { App } from "./app";
import type { Engine } from "./engine";
import { Classes } from "./ui/classes";
import { connectControls, refreshControls } from "./ui/controls";
import { button } from "./ui/dom";
import { describeDownloads, keepForOffline, readSource } from "./ui/downloads";
import { drawingPane } from "./ui/drawing";
import { featuresPane, refreshFeatures } from "./ui/features";
import { announce, forgetAll, showProgress, showState, tell } from "./ui/messages";
import { connectOpening, showOpened } from "./ui/opening";
import { Scene } from "./ui/scene";
import { watchTheme } from "./ui/theme";
import { Tools } from "./ui/tools";
import { Viewport } from "./ui/viewport";
import "./style.css";

const NEXT = "Draw a stroke on each of two materials.";

async function start(): Promise<void> {
  watchTheme(button("theme-button"));
  await keepForOffline();
  const engine = wrap<Engine>(new Worker(new URL("./engine.ts", import.meta.url), { type: "module" }));
  const [source, around] = await Promise.all([readSource(), engine.surroundings()]);
  const viewport = new Viewport();
  const scene = new Scene();

  const redraw = () => panes.forEach((pane) => pane.redraw());
  const refresh = () => {
    refreshControls(app, classes, tools);
    refreshFeatures(app);
    redraw();
  };
  const app = new App(engine, source, around, {
    opened({ raster, notes }) {
      forgetAll("surroundings", "offline");
      notes.forEach((note) => tell("note", note));
      scene.show(app.opened!);
      viewport.show(raster.width, raster.height);
      panes.forEach((pane) => (pane.cursor = { x: raster.width / 2, y: raster.height / 2 }));
      showOpened(app);
      announce(`${app.name} is open.`);
      refresh();
    },
    analysed(milliseconds) {
      showState(`Features took ${(milliseconds / 1000).toFixed(1)} s. ${NEXT}`);
      announce(`The features are there. ${NEXT}`);
      refresh();
    },
    marked() {
      classes.require(app.marks.used);
      scene.marksChanged(app, classes);
      refresh();
    },
    segmented(milliseconds) {
      scene.maskChanged(app, classes);
      if (app.segmentation) {
        showState(`Segmented in ${(milliseconds / 1000).toFixed(2)} s.`);
        announce(`Segmented: ${classes.fractions(app.segmentation.counts)}.`);
      } else if (app.marks.canUndo) showState(NEXT);
      refresh();
    },
    features() {
      scene.featuresChanged(app);
      refresh();
    },
    progress: showProgress,
    state: showState,
    failed: (text) => tell("error", text),
  });
  const tools = new Tools(() => refresh());
  const classes = new Classes({
    selected: () => tools.tool !== "brush" && tools.choose("brush"),
    recoloured: () => {
      scene.marksChanged(app, classes);
      scene.maskChanged(app, classes);
      refresh();
    },
    removed: (label) => {
      if (app.marks.replace(app.marks.labels.map((one) => (one === label ? 0 : one)))) void app.marked();
    },
  });
  const panes = [drawingPane(app, scene, classes, tools, viewport), featuresPane(app, scene, tools, viewport)];

  connectControls(app, classes, tools, viewport, redraw);
  await connectOpening(app);
  await describeDownloads(source, around);
  refresh();
}

start().catch((error: unknown) =>
  tell("error", `The page could not start: ${(error as Error).message}. Load it anew.`, "start"),
);
