// Who is blocked.

import { ask } from "./dialog.js";
import { badge, byId, draw, h } from "./dom.js";
import * as orders from "./orders.js";
import { moment } from "./time.js";

const SHOWN = 8;

export function blocks({ caller, blocks }, after) {
  draw(byId("block-actions"), caller.roles, () => [
    caller.may("POST", "/api/v1/blocks") &&
      h("button", { type: "button", id: "block", "data-focus": "block", onclick: () => ask(orders.block(caller)).then(after) }, "Block…"),
  ]);
  draw(byId("block-list"), [blocks, caller.roles], () =>
    blocks.length
      ? [h("ul", { class: "rows" }, blocks.slice(0, SHOWN).map((block) => row(block, caller, after))),
        blocks.length > SHOWN && h("p", { class: "empty" }, `and ${blocks.length - SHOWN} more: GET /api/v1/blocks`)]
      : h("p", { class: "empty" }, "Nobody is blocked."));
}

function row(block, caller, after) {
  const { id, address, client, subject, reason, initiated_by, expires_at } = block;
  const name = address ?? client ?? subject;
  return h("li", { "data-block": name }, h("div", { class: "task" },
    h("div", null, h("div", { class: "line" }, h("b", { class: "mono" }, name), badge(address ? "address" : client ? "client" : "subject")),
      h("p", { class: "muted" }, reason, ", by ", initiated_by, ", ", expires_at ? ["ends ", moment(expires_at)] : "until it is lifted")),
    caller.may("DELETE", "/api/v1/blocks/{block_id}") &&
      h("button", { type: "button", class: "quiet", "data-focus": `lift ${id}`, "aria-label": `Lift the block of ${name}`, onclick: () => ask(orders.lift(caller, block)).then(after) }, "Lift…")));
}
