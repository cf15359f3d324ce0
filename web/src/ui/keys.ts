// SPDX-License-Identifier: Apache-2.0
/** The keyboard. */

export interface Key {
  keys: string[];
  /** With Ctrl, or ⌘ on a Mac. */
  control?: boolean;
  shift?: boolean;
  shown: string;
  does: string;
  run(key: string): void;
}

/** Have keys work anywhere but in a text field. */
export function listen(keys: Key[]): void {
  document.addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (document.querySelector("dialog[open]") || event.altKey) return;
    if (target instanceof HTMLInputElement && ["text", "number", "color"].includes(target.type)) return;
    const control = event.ctrlKey || event.metaKey;
    const found = keys.find(
      (key) =>
        key.keys.includes(event.key.toLowerCase()) &&
        (key.control ?? false) === control &&
        (key.shift === undefined || key.shift === event.shiftKey),
    );
    if (!found) return;
    event.preventDefault();
    found.run(event.key.toLowerCase());
  });
}

/** Arrow keys on a canvas: how far to go right and down, ten times as far with Shift. */
export function arrow(event: KeyboardEvent, step: number): [number, number] | undefined {
  const steps: Record<string, [number, number]> = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };
  const found = steps[event.key];
  const far = event.shiftKey ? 10 * step : step;
  return found && !event.ctrlKey && !event.metaKey ? [found[0] * far, found[1] * far] : undefined;
}
