// SPDX-License-Identifier: Apache-2.0
/** How images come in: picked, dropped, taken from the examples, a slice of a stack. */

import type { App } from "../app";
import { examples } from "../files/example";
import { create, element, input } from "./dom";

export async function connectOpening(app: App): Promise<void> {
  const mayReplace = () =>
    !app.unsaved || confirm("The strokes on this image are not saved. Open another one all the same?");
  const open = (file: File | undefined) => {
    if (file && mayReplace()) void app.openFile(file);
  };
  onFile("open-input", open);
  onFile("load-labels", (file) => void app.loadLabels(file));
  addEventListener("beforeunload", (event) => {
    if (app.unsaved) event.preventDefault();
  });

  const slice = input("slice-input");
  slice.addEventListener("change", () => {
    const wanted = Math.min(Math.max(Math.round(Number(slice.value)), 1), app.opened!.slices) - 1;
    if (wanted !== app.slice && mayReplace()) void app.openSlice(wanted);
    else slice.value = `${app.slice + 1}`;
  });

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
    open(event.dataTransfer?.files[0]);
  });

  for (const { name, title, image: file } of await examples()) {
    const image = create("img", { src: `examples/${file}`, alt: "", width: 80, height: 80, loading: "lazy" });
    const take = create("button", { type: "button" }, image, title);
    take.addEventListener("click", () => {
      if (mayReplace()) void app.openExample(name, file);
    });
    element("examples", HTMLDivElement).append(take);
  }
}

/** Show which image is open. */
export function showOpened({ name, slice, opened }: App): void {
  const { fullWidth, fullHeight, slices } = opened!;
  element("empty", HTMLParagraphElement).hidden = true;
  const facts = element("image-facts", HTMLParagraphElement);
  facts.hidden = false;
  facts.textContent = `${name}, ${fullWidth} × ${fullHeight} pixels`;
  element("slice-row", HTMLLabelElement).hidden = slices < 2;
  Object.assign(input("slice-input"), { value: `${slice + 1}`, max: `${slices}` });
  element("slice-count", HTMLSpanElement).textContent = `of ${slices}`;
  input("load-labels").disabled = false;
}

function onFile(id: string, run: (file: File) => void): void {
  input(id).addEventListener("change", () => {
    const [file] = input(id).files ?? [];
    if (file) run(file);
    input(id).value = ""; // so that the same file can be taken again
  });
}
