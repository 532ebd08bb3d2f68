// Small drawings.

import { s } from "./dom.js";

/** A line over the last values; the area below it is lightly filled. */
export function sparkline(values, label) {
  const known = values.filter((value) => value !== null);
  const top = Math.max(...known, Number.EPSILON) * 1.1;
  const x = (at) => (at / Math.max(values.length - 1, 1)) * 100;
  const points = values.map((value, at) => (value === null ? null : `${x(at).toFixed(2)},${(30 - (value / top) * 28).toFixed(2)}`));
  const line = points.filter(Boolean).join(" ");
  const drawing = s("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": label });
  if (known.length > 1) {
    const first = x(points.findIndex(Boolean)).toFixed(2);
    drawing.append(s("polygon", { class: "spark-area", points: `${first},30 ${line} 100,30` }));
    drawing.append(s("polyline", { class: "spark-line", points: line }));
  }
  return drawing;
}

/** How full something is, 0 to 1. */
export const bar = (share) =>
  s("svg", { preserveAspectRatio: "none", "aria-hidden": "true" },
    s("rect", { x: 0, y: 0, height: "100%", width: `${(Math.min(Math.max(share, 0), 1) * 100).toFixed(2)}%` }));
