// Status, warnings, what the signer stands on, and how full the nonce store is.

import { byId, draw, h, words } from "./dom.js";
import { tile } from "./activity.js";
import { bar } from "./spark.js";

const KINDS = { ok: "good", warning: "warn", maintenance: "warn", unavailable: "bad" };
const count = new Intl.NumberFormat("en");

export function status(health) {
  const pill = byId("status");
  pill.className = `pill ${KINDS[health.status] ?? ""}`;
  pill.textContent = health.status;
}

export function warnings(health, troubles) {
  const place = byId("warnings");
  draw(place, [health.status, health.warnings, troubles], () => [
    ...health.warnings.map((text) => h("p", { class: health.healthy ? "warn" : "bad" }, sentence(text))),
    ...troubles.map(({ what, text }) => h("p", { class: "bad" }, `${what}: ${text}`)),
  ]);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export const dependsTile = ({ dependencies }) =>
  h("section", { class: "tile" }, h("h2", null, "Depends on"),
    h("ul", { class: "depends" }, dependencies.map(({ name, healthy, detail }) =>
      h("li", null, h("span", { class: healthy ? "dot" : "dot off" }),
        h("span", null, sentence(words(name)), healthy ? "" : ": unavailable"), h("span", { class: "muted" }, detail)))));

/** The bound that is nearest. */
export function nonceTile({ fill, by_status, total, capacity, redis }) {
  const shares = [[fill, "of the capacity"], ...(redis?.memory_fill ? [[redis.memory_fill, "of Redis' memory"]] : [])];
  const [share, of] = shares.sort(([a], [b]) => b - a)[0];
  const kind = share >= 0.9 ? "bad" : share >= 0.75 ? "warn" : "";
  const percent = new Intl.NumberFormat("en", { style: "percent", maximumSignificantDigits: 2 }).format(share);
  return tile("Nonce store", [percent, h("small", null, ` ${of}`)],
    `${count.format(by_status.outstanding)} outstanding, ${count.format(by_status.used)} used; room for ${count.format(capacity - total)}`,
    h("div", { class: `meter ${kind}` }, bar(share)));
}
