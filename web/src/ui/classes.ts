// SPDX-License-Identifier: Apache-2.0
/** The list of classes: number, colour, name, fraction. */

import { classColour } from "../compute/colours";
import { create, element } from "./dom";

export interface ClassEvents {
  selected(): void;
  recoloured(): void;
  removed(label: number): void;
}

interface Row {
  colour: string;
  name: string;
  item: HTMLLIElement;
  radio: HTMLInputElement;
  fraction: HTMLElement;
}

const MOST = 255; // numbers of classes are 8 bits

export class Classes {
  private readonly rows = new Map<number, Row>();
  private readonly list = element("classes", HTMLUListElement);
  private readonly bar = element("fractions-bar", HTMLDivElement);

  constructor(private readonly events: ClassEvents) {
    this.require([1, 2]);
    this.select(1);
  }

  get numbers(): number[] {
    return [...this.rows.keys()].sort((a, b) => a - b);
  }

  get selected(): number {
    return this.numbers.find((label) => this.rows.get(label)!.radio.checked) ?? this.numbers[0];
  }

  name(label: number): string {
    return this.rows.get(label)?.name.trim() || `class ${label}`;
  }

  colour(label: number): string {
    return this.rows.get(label)?.colour ?? classColour(label);
  }

  /** Choose a class; tells whether there is one with that number. */
  select(label: number): boolean {
    const row = this.rows.get(label);
    if (!row) return false;
    row.radio.checked = true;
    this.events.selected();
    return true;
  }

  /** Add a class with the lowest number that is free, and choose it. */
  add(): void {
    for (let label = 1; label <= MOST; label++) {
      if (this.rows.has(label)) continue;
      this.require([label]);
      this.select(label);
      return;
    }
  }

  /** See that there are classes with these numbers. */
  require(labels: number[]): void {
    labels.filter((label) => !this.rows.has(label)).forEach((label) => this.rows.set(label, this.row(label)));
    this.list.replaceChildren(...this.numbers.map((label) => this.rows.get(label)!.item));
  }

  /** How the fractions are said in words. */
  fractions(counts: Map<number, number>): string {
    const said = [...counts].map(([label]) => `${this.name(label)} ${percent(counts, label).toFixed(1)} %`);
    return said.join(", ");
  }

  /** Show which share of the picture each class has; none of them while that is not known. */
  showFractions(counts: Map<number, number> | undefined): void {
    this.bar.hidden = !counts;
    this.rows.forEach((row, label) => {
      row.fraction.textContent = counts ? `${percent(counts, label).toFixed(1)} %` : "";
    });
    if (!counts) return;
    this.bar.ariaLabel = `Fractions: ${this.fractions(counts)}`;
    this.bar.replaceChildren(
      ...this.numbers.map((label) => {
        const part = create("span");
        part.style.flex = `${percent(counts, label)} 0 0`;
        part.style.background = this.colour(label);
        return part;
      }),
    );
  }

  private row(label: number): Row {
    const radio = create("input", {
      type: "radio",
      name: "class",
      value: `${label}`,
      ariaLabel: `Draw class ${label}`,
    });
    const colour = create("input", { type: "color", value: classColour(label), ariaLabel: `Colour of class ${label}` });
    const name = create("input", {
      type: "text",
      value: `class ${label}`,
      ariaLabel: `Name of class ${label}`,
      spellcheck: false,
    });
    const fraction = create("span", { className: "fraction" });
    const remove = create("button", {
      type: "button",
      textContent: "×",
      ariaLabel: `Remove class ${label} and its strokes`,
    });
    const key = create(
      "label",
      { className: "key" },
      radio,
      label <= 9 ? create("kbd", { textContent: `${label}` }) : `${label}`,
    );
    const row = {
      colour: colour.value,
      name: name.value,
      radio,
      fraction,
      item: create("li", {}, key, colour, name, fraction, remove),
    };
    radio.addEventListener("change", () => this.events.selected());
    colour.addEventListener("input", () => {
      row.colour = colour.value;
      this.events.recoloured();
    });
    name.addEventListener("input", () => (row.name = name.value));
    name.addEventListener("focus", () => this.select(label));
    remove.addEventListener("click", () => this.remove(label));
    return row;
  }

  private remove(label: number): void {
    if (this.rows.size <= 2) {
      this.events.removed(label); // two are always there; only its strokes go
      return;
    }
    const wasSelected = this.selected === label;
    this.rows.delete(label);
    this.require([]);
    if (wasSelected) this.select(this.numbers[0]);
    this.events.removed(label);
  }
}

function percent(counts: Map<number, number>, label: number): number {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  return (100 * (counts.get(label) ?? 0)) / total;
}
