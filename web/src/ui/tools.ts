// SPDX-License-Identifier: Apache-2.0
/** What one draws with. */

import { element, input } from "./dom";

export type Tool = "brush" | "eraser" | "pan";

export class Tools {
  /** While the space bar is held down the pointer moves the picture, whatever the tool. */
  isSpaceDown = false;

  /** @param changed called when another tool or width was chosen. */
  constructor(private readonly changed: () => void) {
    document.querySelectorAll("input[name=tool]").forEach((radio) => radio.addEventListener("change", changed));
    input("brush-width").addEventListener("input", () => {
      element("brush-width-value", HTMLOutputElement).textContent = `${input("brush-width").value} px`;
      changed();
    });
  }

  get tool(): Tool {
    return document.querySelector<HTMLInputElement>("input[name=tool]:checked")!.value as Tool;
  }

  /** Of the brush, in pixels of the picture. */
  get radius(): number {
    return Number(input("brush-width").value) / 2;
  }

  get isPanning(): boolean {
    return this.tool === "pan" || this.isSpaceDown;
  }

  choose(tool: Tool): void {
    document.querySelector<HTMLInputElement>(`input[name=tool][value=${tool}]`)!.checked = true;
    this.changed();
  }

  /** Make the brush wider by a factor, or narrower; by a pixel at least. */
  widen(factor: number): void {
    const width = input("brush-width");
    const now = Number(width.value);
    const wanted = Math.round(now * factor);
    width.value = `${wanted === now ? now + Math.sign(factor - 1) : wanted}`;
    width.dispatchEvent(new Event("input"));
  }
}
