// Keys on a time line: what each one did, does and will do until its deadlines.

import { s } from "./dom.js";
import { exact, ms, now } from "./time.js";

const DAY = 86_400_000;

/** Maps times to places, in percent. */
export class Scale {
  constructor(keys, at = now()) {
    const begins = keys.map((key) => ms(key.activated_at ?? key.generated_at));
    const ends = keys.filter((key) => !key.retired_at && !key.revocation).map((key) => ms(key.overlap_until ?? key.expires_at));
    const latest = Math.max(at + DAY / 24, ...ends);
    // What is long over must not press the present into a corner.
    const first = Math.max(Math.min(at, ...begins), at - 1.2 * (latest - at));
    const margin = (latest - first) * 0.035;
    Object.assign(this, { from: first - margin, to: latest + margin, now: at });
  }

  x(time) {
    const place = ((time - this.from) / (this.to - this.from)) * 100;
    return Math.min(Math.max(place, -1), 101);
  }

  /** Round times, about eight of them. */
  ticks() {
    const steps = [1 / 24, 0.25, 1, 2, 7, 14, 30, 91, 182, 365, 1461].map((days) => days * DAY);
    const step = steps.find((size) => (this.to - this.from) / size <= 9) ?? steps.at(-1);
    const first = Math.ceil(this.from / step) * step;
    return Array.from({ length: Math.max(Math.ceil((this.to - first) / step), 0) }, (_, at) => first + at * step);
  }

  label(time) {
    const date = new Date(time).toISOString();
    return this.to - this.from > 4 * DAY ? date.slice(0, 10) : date.slice(5, 16).replace("T", " ");
  }
}

const percent = (value) => `${value.toFixed(3)}%`;
const line = (kind, scale, time, y1 = 0, y2 = "100%") =>
  s("line", { class: kind, x1: percent(scale.x(time)), x2: percent(scale.x(time)), y1, y2 });

export function axis(scale) {
  const drawing = s("svg", { class: "scale", "aria-hidden": "true" });
  const present = scale.x(scale.now);
  for (const [at, time] of scale.ticks().entries()) {
    const x = scale.x(time);
    if (Math.abs(x - present) < 7 || x > 95 || x < 4) continue;
    // Where there is little room, every third.
    const kind = at % 3 || Math.abs(x - present) < 24 || x > 86 ? "fine" : "";
    drawing.append(s("text", { class: kind, x: percent(x), y: 16, "text-anchor": "middle" }, scale.label(time)));
  }
  const anchor = present < 4 ? "start" : present > 96 ? "end" : "middle";
  drawing.append(s("text", { class: "now", x: percent(present), y: 16, "text-anchor": anchor }, "now"));
  return drawing;
}

/** One key's line. Overlaps are bands over both keys. */
export function track(key, scale, rotations, warnAge, label) {
  const drawing = s("svg", { class: "track", role: "img", "aria-label": label }, s("title", null, label));
  for (const time of scale.ticks()) drawing.append(line("grid", scale, time));
  for (const rotation of rotations) drawing.append(band(rotation, scale));
  for (const [kind, from, to] of segments(key, scale.now, rotations)) drawing.append(segment(kind, from, to, scale));
  for (const [kind, time] of marks(key, warnAge)) drawing.append(line(kind, scale, time, "24%", "76%"));
  drawing.append(line("now", scale, scale.now));
  return drawing;
}

function band(rotation, scale) {
  const [x, end] = [scale.x(ms(rotation.started_at)), scale.x(overlapEnd(rotation))];
  const title = `${rotation.rotation_id}: overlap until ${exact(rotation.overlap_until)}`;
  const attributes = { class: "seg-band", x: percent(x), width: percent(Math.max(end - x, 0)), y: 0, height: "100%" };
  return s("rect", { ...attributes, "data-overlap": rotation.rotation_id }, s("title", null, title));
}

/** A rotation that ended early has no overlap any more. */
const overlapEnd = ({ overlap_until, completed_at, cancelled_at }) =>
  Math.min(...[overlap_until, completed_at, cancelled_at].map(ms).filter((time) => time !== null));

const HEIGHTS = { "seg-verifies": ["40%", "20%"], "seg-kept": ["48%", "4%"] };

function segment(kind, from, to, scale) {
  const [x, end] = [scale.x(from), scale.x(to)];
  const [y, height] = HEIGHTS[kind] ?? ["33%", "34%"];
  return s("rect", { class: kind, x: percent(x), width: percent(Math.max(end - x, 0.15)), y, height, rx: 2 });
}

/** What it did when: waits, signs, will sign, only verifies; what a retired key has signed verifies on. */
function segments(key, at, rotations) {
  const activated = ms(key.activated_at);
  const revoked = ms(key.revocation?.revoked_at);
  if (activated === null) return [["seg-made", ms(key.generated_at), revoked ?? at]];
  const replaced = rotations.filter((rotation) => rotation.old_key_id === key.key_id && !rotation.cancelled_at);
  const stops = [ms(replaced[0]?.started_at), revoked, ms(key.retired_at), ms(key.expires_at)].filter((time) => time !== null);
  const signsUntil = Math.min(...stops);
  const made = ["seg-made", ms(key.generated_at), activated];
  if (key.state === "active") return [made, ["seg-signs", activated, at], ["seg-will", at, ms(key.expires_at)]];
  const ends = Math.min(revoked ?? Infinity, ms(key.retired_at ?? key.overlap_until ?? key.expires_at) ?? Infinity);
  const kept = revoked === null && ends < at ? [["seg-kept", ends, at]] : [];
  return [made, ["seg-signs", activated, signsUntil], ["seg-verifies", signsUntil, Math.max(ends, signsUntil)], ...kept];
}

function marks(key, warnAge) {
  if (key.revocation) return [["mark-bad", ms(key.revocation.revoked_at)]];
  if (key.state !== "active") return key.overlap_until && !key.retired_at ? [["mark-end", ms(key.overlap_until)]] : [];
  return [["mark-warn", ms(key.activated_at) + warnAge * 1000], ["mark-end", ms(key.expires_at)]];
}
