// Rotations: the one that runs, and those before it.

import { ask } from "./dialog.js";
import { badge, byId, draw, h, words } from "./dom.js";
import * as orders from "./orders.js";
import { bar } from "./spark.js";
import { moment, ms, now } from "./time.js";

const KINDS = { in_progress: "warn", overlap_ended: "warn", completed: "good", cancelled: "" };
const SHOWN = 5;

export function rotations({ caller, rotations }, after) {
  // The bar moves a step each ten seconds.
  const pace = rotations.some((rotation) => rotation.status === "in_progress") ? Math.floor(now() / 10_000) : 0;
  draw(byId("rotation-list"), [rotations, caller.roles, pace], () =>
    rotations.length
      ? h("ul", { class: "rows" }, rotations.slice(0, SHOWN).map((rotation) => row(rotation, caller, after)))
      : h("p", { class: "empty" }, "No key was rotated yet."));
}

function row(rotation, caller, after) {
  const { rotation_id, status, old_key_id, new_key_id, reason, notes, initiated_by, started_at, overlap_until, emergency } = rotation;
  const running = status === "in_progress";
  const open = running || status === "overlap_ended";
  const button = (name, text, order) =>
    h("button", { type: "button", "data-focus": `${name} ${rotation_id}`, "aria-label": `${text.replace("…", "")} ${rotation_id}`, onclick: () => ask(order).then(after) }, text);
  return h("li", { "data-rotation": rotation_id, "data-status": status },
    h("div", { class: "line" }, h("b", null, rotation_id), badge(words(status), KINDS[status]), emergency && badge("without overlap", "bad"),
      h("span", { class: "mono" }, `${old_key_id ?? "nothing"} → ${new_key_id}`)),
    running && h("div", { class: "progress" }, bar((now() - ms(started_at)) / Math.max(ms(overlap_until) - ms(started_at), 1))),
    h("p", { class: "muted" }, reason, ", by ", initiated_by, ", ", moment(started_at), running && ["; overlap ends ", moment(overlap_until)]),
    notes && h("p", { class: "muted" }, "“", notes, "”"),
    open && h("div", { class: "actions" },
      caller.may("POST", "/api/v1/rotations/{rotation_id}/complete") && button("complete", "Complete…", orders.complete(caller, rotation)),
      running && caller.may("POST", "/api/v1/rotations/{rotation_id}/cancel") && button("cancel", "Cancel…", orders.cancel(caller, rotation))));
}
