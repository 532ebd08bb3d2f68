// Time, by the server's clock: the one that deadlines are judged by.

import { h } from "./dom.js";

let ahead = 0;

/** Learns how far the server's clock is ahead of this machine's. */
export function heard(date) {
  const at = Date.parse(date ?? "");
  // The header has whole seconds.
  if (!Number.isNaN(at) && Math.abs(at + 500 - Date.now() - ahead) > 1500) ahead = at + 500 - Date.now();
}

export const now = () => Date.now() + ahead;

export const ms = (timestamp) => (timestamp ? Date.parse(timestamp) : null);

/** `2026-01-31 23:59:59 UTC` */
export const exact = (timestamp) => `${new Date(timestamp).toISOString().slice(0, 19).replace("T", " ")} UTC`;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** `89 d 23 h`: two units at most. */
export function span(seconds) {
  const rest = Math.max(0, Math.round(seconds));
  const at = UNITS.findIndex(([, size]) => rest >= size);
  if (at < 0) return "0 s";
  const [unit, size] = UNITS[at];
  const [next, small] = UNITS[at + 1] ?? ["", 0];
  const left = small ? Math.floor((rest % size) / small) : 0;
  return `${Math.floor(rest / size)} ${unit}${left ? ` ${left} ${next}` : ""}`;
}

/** How long ago, or how long until. */
export function distance(timestamp) {
  const seconds = (ms(timestamp) - now()) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds < 0 ? `${span(-seconds)} ago` : `in ${span(seconds)}`;
}

/** A time that goes on. */
export const moment = (timestamp) =>
  h("time", { datetime: timestamp, title: exact(timestamp), "data-runs": true }, distance(timestamp));

export function tick() {
  for (const time of document.querySelectorAll("time[data-runs]")) {
    const text = distance(time.dateTime);
    if (time.textContent !== text) time.textContent = text;
  }
}

/** Of `datetime-local`, which people fill in as UTC. */
export const fromField = (text) => (text ? `${text.length === 16 ? `${text}:00` : text}Z` : undefined);
