// SPDX-License-Identifier: Apache-2.0
/** The page: elements, keys, panes and the app, wired. */

import { wrap } from "comlink";
import { App, type Tool } from "./app";
import { PATCH } from "./compute/windows";
import type { Engine } from "./engine";
import { examples } from "./files/example";
import { describeDownloads, keepForOffline, readSource } from "./ui/downloads";
import { Classes } from "./ui/classes";
import { create, element } from "./ui/dom";
import { arrow, listen, type Key } from "./ui/keys";
import { announce, forget, forgetAll, showProgress, showState, tell } from "./ui/messages";
import { Pane } from "./ui/pane";
import { saveFractions, saveLabels, saveMask, saveOverlay } from "./ui/saving";
import { Scene } from "./ui/scene";
import { watchTheme } from "./ui/theme";
import { Viewport } from "./ui/viewport";
import "./style.css";

const button = (id: string) => element(id, HTMLButtonElement);
const input = (id: string) => element(id, HTMLInputElement);

async function start(): Promise<void> {
  watchTheme(button("theme-button"));
  await keepForOffline();
  const engine = wrap<Engine>(new Worker(new URL("./engine.ts", import.meta.url), { type: "module" }));
  const [source, around] = await Promise.all([readSource(), engine.surroundings()]);
  const viewport = new Viewport();
  const scene = new Scene();

  const app = new App(engine, source, around, {
    opened(picture) {
      forgetAll("surroundings");
      const { raster, fullWidth, fullHeight, slices, notes } = picture;
      scene.show(picture);
      viewport.show(raster.width, raster.height);
      imagePane.cursor = featuresPane.cursor = { x: raster.width / 2, y: raster.height / 2 };
      notes.forEach((note) => tell("note", note));
      const facts = element("image-facts", HTMLParagraphElement);
      facts.hidden = false;
      facts.textContent = `${app.name}, ${fullWidth} × ${fullHeight} pixels`;
      element("slice-row", HTMLLabelElement).hidden = slices < 2;
      Object.assign(input("slice-input"), { value: `${app.slice + 1}`, max: `${slices}` });
      element("slice-count", HTMLSpanElement).textContent = `of ${slices}`;
      input("load-labels").disabled = false;
      announce(`${app.name} is open.`);
      refresh();
    },
    analysed() {
      showState("Draw a stroke on each of two materials.");
      announce("The features are there. Draw a stroke on each of two materials.");
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
        const total = app.segmentation.classes.length;
        const words = [...app.segmentation.counts].map(
          ([label, count]) => `${classes.name(label)} ${((100 * count) / total).toFixed(1)} %`,
        );
        announce(`Segmented: ${words.join(", ")}.`);
      } else if (app.ready) showState("Draw a stroke on each of two materials.");
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

  const tool = () => document.querySelector<HTMLInputElement>("input[name=tool]:checked")!.value as Tool;
  const classes = new Classes({
    selected: () => {
      if (tool() === "pan") chooseTool("brush");
    },
    recoloured: () => {
      scene.marksChanged(app, classes);
      scene.maskChanged(app, classes);
      classes.showFractions(app.segmentation?.counts);
      redraw();
    },
    removed: (label) => {
      if (app.marks.replace(app.marks.labels.map((one) => (one === label ? 0 : one)))) void app.marked();
    },
  });

  // ---- drawing

  const radius = () => Number(input("brush-width").value) / 2;
  let spaceIsDown = false;
  const chooseTool = (name: Tool) => {
    document.querySelector<HTMLInputElement>(`input[name=tool][value=${name}]`)!.checked = true;
    refresh();
  };
  const draw = (x: number, y: number) => {
    app.marks.drawTo(x, y, radius(), tool() === "eraser" ? 0 : classes.selected);
    scene.marksChanged(app, classes);
    redraw();
  };
  const endStroke = () => {
    if (app.marks.end()) void app.marked();
  };
  const imagePane = new Pane(
    element("image-canvas", HTMLCanvasElement),
    viewport,
    {
      start: (x, y) => app.opened && draw(x, y),
      move: (x, y) => app.opened && draw(x, y),
      end: endStroke,
      cancel: () => {
        if (app.marks.end()) app.marks.undo();
        scene.marksChanged(app, classes);
        redraw();
      },
      isPanning: () => tool() === "pan" || spaceIsDown,
    },
    (context) => {
      scene.paintImage(
        context,
        app,
        viewport,
        imagePane.hover && tool() !== "pan" ? imagePane.hover : undefined,
        radius(),
      );
    },
  );

  let pressed: { x: number; y: number } | undefined;
  const query = (x: number, y: number) => {
    const [row, column] = [Math.floor(y / PATCH), Math.floor(x / PATCH)];
    const { features } = app;
    if (!features || row < 0 || column < 0 || row >= features.height || column >= features.width) return;
    if (app.model === "NoPE") {
      tell("note", "Of NoPE the examples have colours only, so there is no likeness to show.", "nope");
      return;
    }
    void app.showSimilarity({ row, column });
    announce(`How like all patches are to the one in row ${row + 1}, column ${column + 1}.`);
  };
  const featuresPane = new Pane(
    element("features-canvas", HTMLCanvasElement),
    viewport,
    {
      start: (x, y) => (pressed = { x, y }),
      move: (x, y) => pressed && query((pressed.x = x), (pressed.y = y)),
      end: () => pressed && query(pressed.x, pressed.y),
      cancel: () => (pressed = undefined),
      isPanning: () => tool() === "pan" || spaceIsDown,
    },
    (context) => scene.paintFeatures(context, app, viewport),
  );
  const redraw = () => {
    imagePane.redraw();
    featuresPane.redraw();
  };

  // ---- what can be done now

  const refresh = () => {
    const { marks, segmentation, opened, model, ready } = app;
    button("undo").disabled = !marks.canUndo;
    button("redo").disabled = !marks.canRedo;
    for (const id of ["clear", "save-labels"]) button(id).disabled = marks.used.length === 0;
    for (const id of ["save-mask-png", "save-mask-tiff", "save-overlay", "save-fractions", "where-next"]) {
      button(id).disabled = !segmentation;
    }
    classes.showFractions(segmentation?.counts);
    for (const radio of document.querySelectorAll<HTMLInputElement>("input[name=model]")) {
      radio.disabled = !opened?.models.includes(radio.value);
      radio.checked = radio.value === model;
      radio.parentElement!.title = radio.disabled
        ? radio.value === "ALiBi"
          ? "Being computed"
          : "Only of the examples"
        : "";
    }
    button("show-colours").hidden = !app.query;
    element("features-title", HTMLElement).textContent = app.query ? "Likeness" : "Features";
    const waiting = opened && !ready && marks.used.length > 0;
    element("busy", HTMLSpanElement).textContent = waiting ? "The mask comes with the features." : "";
    for (const canvas of document.querySelectorAll("canvas[tabindex]"))
      canvas.classList.toggle("panning", tool() === "pan");
    element("zoom-value", HTMLOutputElement).textContent = `${Math.round(100 * viewport.scale)} %`;
    redraw();
  };
  viewport.onChange(
    () => (element("zoom-value", HTMLOutputElement).textContent = `${Math.round(100 * viewport.scale)} %`),
  );

  // ---- controls

  const mayReplace = () =>
    !app.unsaved || confirm("The strokes on this image are not saved. Open another one all the same?");
  const openFile = async (file: File | undefined) => {
    if (file && mayReplace()) await app.openFile(file);
  };
  const undo = () => app.marks.undo() && void app.marked();
  const redo = () => app.marks.redo() && void app.marked();
  const onFile = (id: string, run: (file: File) => void) =>
    input(id).addEventListener("change", () => {
      const [file] = input(id).files ?? [];
      if (file) run(file);
      input(id).value = ""; // so that the same file can be taken again
    });
  onFile("open-input", openFile);
  onFile("load-labels", (file) => void app.loadLabels(file));
  element("controls", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
  const click = (id: string, run: () => void) => button(id).addEventListener("click", run);
  click("add-class", () => classes.add());
  click("undo", undo);
  click("redo", redo);
  click("clear", () => app.marks.replace(new Uint8Array(app.marks.labels.length)) && void app.marked());
  click("zoom-in", () => viewport.zoom(1.5));
  click("zoom-out", () => viewport.zoom(1 / 1.5));
  click("zoom-fit", () => viewport.fit());
  click("show-colours", () => void app.showSimilarity());
  click("where-next", () => {
    const places = app.suggest();
    tell(
      "note",
      places.length
        ? `The mask is least certain in the ${places.length} squares that are drawn on the image.`
        : "There are strokes everywhere already.",
      "where",
    );
    redraw();
  });
  const named = (label: number) => classes.name(label);
  const colour = (label: number) => classes.colour(label);
  click("save-labels", () => {
    saveLabels(app.marks.labels, app.name, app.opened!);
    app.unsaved = false;
  });
  click("save-mask-png", () => saveMask(app.segmentation!.classes, app.name, app.opened!, "png"));
  click("save-mask-tiff", () => saveMask(app.segmentation!.classes, app.name, app.opened!, "tif"));
  click("save-overlay", () => saveOverlay(app.segmentation!.classes, app.name, app.opened!, colour));
  click("save-fractions", () => saveFractions(app.segmentation!, app.name, app.slice, app.opened!, named));
  for (const [id, unit] of [
    ["brush-width", "px"],
    ["opacity", "%"],
  ]) {
    input(id).addEventListener("input", () => {
      element(`${id}-value`, HTMLOutputElement).textContent = `${input(id).value} ${unit}`;
      redraw();
    });
  }
  for (const id of ["show-strokes", "show-uncertain"]) input(id).addEventListener("change", redraw);
  document.querySelectorAll("input[name=tool]").forEach((radio) => radio.addEventListener("change", refresh));
  document
    .querySelectorAll<HTMLInputElement>("input[name=model]")
    .forEach((radio) => radio.addEventListener("change", () => void app.showModel(radio.value)));
  input("slice-input").addEventListener("change", () => {
    const slice = Math.min(Math.max(Math.round(Number(input("slice-input").value)), 1), app.opened!.slices) - 1;
    if (slice !== app.slice && mayReplace()) void app.openSlice(slice);
    else input("slice-input").value = `${app.slice + 1}`;
  });
  click("help-button", () => element("help", HTMLDialogElement).showModal());
  addEventListener("beforeunload", (event) => {
    if (app.unsaved) event.preventDefault();
  });

  // ---- files that are dropped

  const hint = element("drop-hint", HTMLDivElement);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    hint.hidden = !event.dataTransfer?.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    hint.hidden = true;
    void openFile(event.dataTransfer?.files[0]);
  });

  // ---- keys

  const widen = (factor: number) => {
    const width = input("brush-width");
    width.value = `${Math.max(Math.round(Number(width.value) * factor), Number(width.value) + Math.sign(factor - 1))}`;
    width.dispatchEvent(new Event("input"));
  };
  const toggle = (id: string) => {
    input(id).checked = !input(id).checked;
    redraw();
  };
  const keys: Key[] = [
    { keys: "123456789".split(""), shown: "1 … 9", does: "choose a class", run: (key) => classes.select(Number(key)) },
    { keys: ["b"], shown: "B", does: "brush", run: () => chooseTool("brush") },
    { keys: ["e"], shown: "E", does: "eraser", run: () => chooseTool("eraser") },
    {
      keys: ["h"],
      shown: "H",
      does: "move the picture; the second mouse button and two fingers do, too",
      run: () => chooseTool("pan"),
    },
    { keys: ["["], shown: "[", does: "narrower brush", run: () => widen(1 / 1.25) },
    { keys: ["]"], shown: "]", does: "wider brush", run: () => widen(1.25) },
    { keys: ["z"], control: true, shift: false, shown: "Ctrl Z", does: "undo", run: undo },
    { keys: ["z"], control: true, shift: true, shown: "Ctrl Shift Z", does: "redo; Ctrl Y, too", run: redo },
    { keys: ["y"], control: true, shown: "Ctrl Y", does: "redo", run: redo },
    { keys: ["+", "="], shown: "+", does: "zoom in; the wheel, too", run: () => viewport.zoom(1.25) },
    { keys: ["-"], shown: "−", does: "zoom out", run: () => viewport.zoom(1 / 1.25) },
    { keys: ["0"], shown: "0", does: "show all of the picture", run: () => viewport.fit() },
    { keys: ["s"], shown: "S", does: "show or hide strokes", run: () => toggle("show-strokes") },
    { keys: ["u"], shown: "U", does: "hatch what is uncertain", run: () => toggle("show-uncertain") },
    { keys: ["?"], shown: "?", does: "this help", run: () => element("help", HTMLDialogElement).showModal() },
  ];
  listen(keys);
  element("keys", HTMLTableSectionElement).append(
    ...[
      ["Arrows", "on a picture: move the crosshair, with Shift ten times as far"],
      ["Space", "on the image: draw at the crosshair, held down along with it; with the mouse, move the picture"],
      ["Enter", "on the features: how like all patches are to the one under the crosshair"],
    ].map(([key, does]) =>
      create("tr", {}, create("td", {}, create("kbd", { textContent: key })), create("td", { textContent: does })),
    ),
  );
  const moveCursor = (pane: Pane, event: KeyboardEvent, step: number): boolean => {
    const moved = arrow(event, step);
    if (!moved || !app.opened || !pane.cursor) return false;
    const { width, height } = app.opened.raster;
    pane.isCursorSeen = true;
    pane.cursor.x = Math.min(Math.max(pane.cursor.x + moved[0], 0), width - 1);
    pane.cursor.y = Math.min(Math.max(pane.cursor.y + moved[1], 0), height - 1);
    viewport.reveal(pane.cursor.x, pane.cursor.y);
    event.preventDefault();
    return true;
  };
  const [imageCanvas, featuresCanvas] = [
    element("image-canvas", HTMLCanvasElement),
    element("features-canvas", HTMLCanvasElement),
  ];
  imageCanvas.addEventListener("keydown", (event) => {
    const moved = moveCursor(imagePane, event, Math.max(Math.round(radius()), 1));
    if (event.key === " ") {
      event.preventDefault();
      spaceIsDown = true;
    }
    const { cursor } = imagePane;
    // The space bar draws where the keyboard is; with a mouse button it moves the picture.
    if (spaceIsDown && cursor && app.opened && (moved || (event.key === " " && imagePane.isCursorSeen))) {
      draw(cursor.x, cursor.y);
    }
  });
  document.addEventListener("keyup", (event) => {
    if (event.key !== " ") return;
    spaceIsDown = false;
    endStroke();
  });
  featuresCanvas.addEventListener("keydown", (event) => {
    if (moveCursor(featuresPane, event, PATCH)) return;
    if (event.key === "Enter" && featuresPane.cursor) query(featuresPane.cursor.x, featuresPane.cursor.y);
    if (event.key === "Escape") void app.showSimilarity();
  });

  // ---- the first look

  const all = await examples();
  element("examples", HTMLDivElement).append(
    ...all.map((example) => {
      const image = create("img", {
        src: `examples/${example.image}`,
        alt: "",
        width: 80,
        height: 80,
        loading: "lazy",
      });
      const take = create("button", { type: "button" }, image, example.title);
      take.addEventListener("click", () => mayReplace() && void app.openExample(example.name, example.image));
      return take;
    }),
  );
  await describeDownloads(source, around);
  forget("starting");
  refresh();
}

start().catch((error: unknown) =>
  tell("error", `The page could not start: ${(error as Error).message}. Load it anew.`, "start"),
);
