// The keys: their time line, what they are, and what can be done with them.

import { read } from "./api.js";
import { ask, refusal } from "./dialog.js";
import { badge, byId, draw, h, s, words } from "./dom.js";
import * as orders from "./orders.js";
import { exact, moment, now, span } from "./time.js";
import { Scale, axis, track } from "./timeline.js";

const KINDS = { active: "good", pending: "", rotating: "warn", retired: "", revoked: "bad", expired: "bad" };
const SHOWN = 8;
let all = false;

export function keys({ caller, signer, rotations = [] }, after) {
  const stable = signer.keys.map(({ age_seconds, ...key }) => key);
  head({ caller, signer }, after);
  // The present moves on: drawn anew each minute, each second where everything is very young.
  const pace = signer.policy.key.maximum_age_seconds > 86_400 ? 60_000 : 1000;
  draw(byId("timeline"), [stable, rotations, caller.roles, all, Math.floor(now() / pace)], () => rows({ caller, signer, rotations }, after));
}

function head({ caller, signer }, after) {
  const active = signer.keys.find((key) => key.state === "active");
  const button = (id, text, order, kind) => h("button", { type: "button", class: kind, id, "data-focus": id, onclick: () => ask(order()).then(after) }, text);
  draw(byId("key-actions"), [caller.roles, active?.key_id, signer.policy.key], () => [
    caller.may("POST", "/api/v1/keys") && button("generate", "Generate ahead…", () => orders.generate(caller, signer)),
    caller.may("POST", "/api/v1/keys/rotate") && button("rotate", caller.is("operator") ? "Rotate…" : "Rotate without overlap…", () => orders.rotate(caller, signer)),
    active && caller.may("POST", "/api/v1/keys/emergency") && button("emergency", "Emergency…", () => orders.emergency(caller, active), "danger"),
  ]);
}

function rows({ caller, signer, rotations }, after) {
  if (!signer.keys.length) return h("p", { class: "empty" }, "There is no key yet.");
  const shown = all ? signer.keys : signer.keys.slice(0, SHOWN);
  const scale = new Scale(shown);
  const warnAge = signer.policy.key.warn_age_seconds;
  return [
    h("div", { class: "axis" }, axis(scale)),
    shown.map((key) => {
      const own = rotations.filter(({ old_key_id, new_key_id }) => [old_key_id, new_key_id].includes(key.key_id));
      return h("div", { class: "key", "data-key": key.key_id, "data-state": key.state },
        facts(key), h("div", { class: "lane" }, track(key, scale, own, warnAge, described(key))), actions(key, caller, after));
    }),
    signer.keys.length > SHOWN && h("p", { class: "more" },
      h("button", { type: "button", class: "quiet", "data-focus": "all-keys", onclick: () => { all = !all; after(); } },
        all ? `Only the newest ${SHOWN}` : `All ${signer.keys.length} keys`)),
    legend(),
  ];
}

function facts(key) {
  return h("div", { class: "facts" },
    h("div", { class: "name" }, h("b", { class: "mono" }, key.key_id), badge(key.state, KINDS[key.state])),
    h("div", { class: "muted" }, deadline(key)));
}

/** What comes next for it, or what came last. */
function deadline(key) {
  if (key.private_key_destroyed_at) return ["private key destroyed ", moment(key.private_key_destroyed_at)];
  if (key.revocation) return [words(key.revocation.reason), ", ", moment(key.revocation.revoked_at)];
  if (key.state === "pending") return ["generated ", moment(key.generated_at)];
  if (key.state === "retired") return ["retired ", moment(key.retired_at ?? key.overlap_until)];
  if (key.state === "rotating") return ["overlap ends ", moment(key.overlap_until)];
  return [key.state === "expired" ? "expired " : "expires ", moment(key.expires_at)];
}

function described(key) {
  const parts = [`${key.key_id} is ${key.state}`, `generated ${exact(key.generated_at)}`];
  if (key.activated_at) parts.push(`active from ${exact(key.activated_at)}`);
  if (key.overlap_until) parts.push(`overlap until ${exact(key.overlap_until)}`);
  if (key.revocation) parts.push(`revoked ${exact(key.revocation.revoked_at)}`);
  else parts.push(`ends ${exact(key.expires_at)}`);
  return parts.join(", ");
}

function actions(key, caller, after) {
  const ended = ["retired", "revoked"].includes(key.state);
  const button = (name, text, order) =>
    h("button", { type: "button", class: "quiet danger", "data-focus": `${name} ${key.key_id}`, "aria-label": `${text.replace("…", "")} ${key.key_id}`, onclick: () => ask(order()).then(after) }, text);
  return h("div", { class: "actions" },
    h("button", { type: "button", class: "quiet", "data-focus": `details ${key.key_id}`, "aria-label": `Details of ${key.key_id}`, onclick: () => details(key) }, "Details"),
    key.state !== "revoked" && caller.may("POST", "/api/v1/keys/{key_id}/revoke") && button("revoke", "Revoke…", () => orders.revoke(caller, key)),
    ended && !key.private_key_destroyed_at && caller.may("POST", "/api/v1/keys/{key_id}/destroy") && button("destroy", "Destroy…", () => orders.destroy(caller, key)));
}

async function details(key) {
  const pem = h("pre", null, "…");
  const at = (time) => (time ? exact(time) : "–");
  const facts = [
    ["State", key.state], ["Algorithm", key.algorithm], ["Fingerprint", h("code", null, key.fingerprint)],
    ["Generated", at(key.generated_at)], ["Activated", at(key.activated_at)],
    ["Age", key.age_seconds === null ? "–" : span(key.age_seconds)], ["Ends", at(key.expires_at)],
    ...(key.overlap_until ? [["Overlap until", at(key.overlap_until)]] : []),
    ...(key.revocation ? [["Revoked", `${at(key.revocation.revoked_at)}, ${words(key.revocation.reason)}, by ${key.revocation.initiated_by}`]] : []),
    ["In the token", [h("code", null, key.token.object_label), " of ", key.token.serial]],
    ["Refused of the template", key.token.omitted.join(", ") || "nothing"], ["Public key", pem],
  ];
  const close = h("button", { type: "submit" }, "Close");
  const dialog = h("dialog", { "aria-labelledby": "details-title", onclose: () => dialog.remove() },
    h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); dialog.close(); } },
      h("h2", { id: "details-title", class: "mono" }, key.key_id),
      h("dl", { class: "details" }, facts.map(([name, value]) => [h("dt", null, name), h("dd", null, value)])),
      h("div", { class: "buttons" }, close)));
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
  try {
    pem.textContent = await read(`/api/v1/keys/${encodeURIComponent(key.key_id)}/public.pem`);
  } catch (error) {
    pem.replaceWith(refusal(error));
  }
}

const LEGEND = [["seg-signs", "signed"], ["seg-will", "may still sign"], ["seg-verifies", "only verifies"], ["seg-band", "overlap"], ["seg-kept", "retired: verifies on"]];
const MARKS = [["mark-warn", "rotate from here on"], ["mark-end", "deadline"], ["mark-bad", "revoked"]];

function legend() {
  const sample = (shape, text) => h("span", null, s("svg", { "aria-hidden": "true" }, shape), text);
  return h("div", { class: "legend" },
    LEGEND.map(([kind, text]) => sample(s("rect", { class: kind, x: 0, width: "100%", rx: 2, ...(kind === "seg-kept" ? { y: "42%", height: "16%" } : { y: "15%", height: "70%" }) }), text)),
    MARKS.map(([kind, text]) => sample(s("line", { class: kind, x1: "50%", x2: "50%", y1: 0, y2: "100%" }), text)));
}
