// SPDX-License-Identifier: Apache-2.0
/** What the user is told: messages that stay until they are read, progress with a total, and news for screen readers. */

import { create, element, megabytes } from "./dom";
import type { Progress } from "../engine";

const KINDS = { note: "Note", warning: "Note", error: "Error" };
export type Kind = keyof typeof KINDS;

const list = () => element("messages", HTMLDivElement);

/** Show a message; one with the same key takes the place of the last. */
export function tell(kind: Kind, text: string, key = text): void {
  forget(key);
  const close = create("button", { type: "button", textContent: "×", ariaLabel: "Close this message" });
  const message = create(
    "div",
    { className: `message ${kind}` },
    create("span", {}, create("strong", { className: kind, textContent: `${KINDS[kind]}: ` }), text),
    close,
  );
  if (kind === "error") message.role = "alert";
  message.dataset.key = key;
  close.addEventListener("click", () => message.remove());
  list().append(message);
}

/** Take a message away. */
export function forget(key: string): void {
  for (const message of [...list().children]) {
    if (message instanceof HTMLElement && message.dataset.key === key) message.remove();
  }
}

/** Take all messages away, but for those with these keys. */
export function forgetAll(...kept: string[]): void {
  for (const message of [...list().children]) {
    if (message instanceof HTMLElement && !kept.includes(message.dataset.key ?? "")) message.remove();
  }
}

/** What is being done and how far it is. */
export function showProgress({ task, done, total }: Progress): void {
  const bytes = total > 100_000;
  element("progress-label", HTMLLabelElement).textContent = bytes
    ? `${task}: ${megabytes(done)} of ${megabytes(total)}`
    : `${task}: ${done} of ${total}`;
  const bar = element("progress", HTMLProgressElement);
  bar.hidden = false;
  bar.max = total;
  bar.value = done;
}

/** That nothing is being done, and what could be next. */
export function showState(text: string): void {
  element("progress-label", HTMLLabelElement).textContent = text;
  element("progress", HTMLProgressElement).hidden = true;
}

/** Tell screen readers. */
export function announce(text: string): void {
  element("announcement", HTMLParagraphElement).textContent = text;
}
