// The audit trail: the newest records, by a filter that the server applies to all of it.

import { call, read } from "./api.js";
import { badge, byId, draw, h, words } from "./dom.js";
import { exact, fromField } from "./time.js";

const PAGE = matchMedia("(max-width: 52rem)").matches ? 12 : 25;
const KINDS = { info: "", warning: "warn", critical: "bad", error: "bad" };
let shown = PAGE;

const FIELDS = [
  { name: "event_type", label: "Event", list: "EventType" },
  { name: "key_id", label: "Key" },
  { name: "actor", label: "Actor" },
  { name: "resource", label: "Resource" },
  { name: "outcome", label: "Outcome", list: "Outcome" },
  { name: "severity", label: "Severity", list: "Severity" },
  { name: "since", label: "Since (UTC)", type: "datetime-local" },
];

/** The filter's fields; the words that can be chosen are those of the server's own description. */
export async function filter(again) {
  const form = byId("audit-filter");
  if (form.childElementCount) return;
  const changed = () => { shown = PAGE; again(); };
  form.replaceChildren(...FIELDS.map(({ name, label, list, type = "text" }) =>
    h("label", null, label, list
      ? h("select", { name, onchange: changed }, h("option", { value: "" }, "any"))
      : h("input", { name, type, autocomplete: "off", spellcheck: "false", maxlength: 256, onchange: changed }))),
    h("button", { type: "reset" }, "Clear"));
  form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
  form.addEventListener("reset", () => setTimeout(changed));
  const { components: { schemas } } = await read("/api/v1/openapi.json");
  for (const { name, list } of FIELDS.filter(({ list }) => list)) {
    form.elements[name].append(...schemas[list].enum.map((word) => h("option", { value: word }, words(word))));
  }
}

/** What the filter asks for. */
export async function search() {
  const query = new URLSearchParams({ limit: shown });
  for (const [name, value] of new FormData(byId("audit-filter"))) {
    if (value.trim()) query.set(name, name === "since" ? fromField(value) : value.trim());
  }
  const { data, headers } = await call("GET", `/api/v1/audit?${query}`);
  return { records: data, more: headers.has("link") };
}

export function audit({ audit: { records, more } }, after) {
  draw(byId("audit-list"), [records, more], () => [
    records.length ? table(records) : h("p", { class: "empty" }, "No record fits."),
    more && h("p", { class: "more" }, h("button", { type: "button", class: "quiet", "data-focus": "more", onclick: () => { shown += PAGE; after(); } }, "Older records")),
  ]);
}

const table = (records) => h("table", null,
  h("thead", null, h("tr", null, ["Time (UTC)", "Event", "Actor", "Resource", "Outcome"].map((name) => h("th", { scope: "col" }, name)))),
  h("tbody", null, records.map(row)));

function row(record) {
  const { sequence, type, timestamp, actor, resource, outcome, severity } = record;
  return h("tr", { "data-event": type, "data-sequence": sequence },
    h("td", { title: `record ${sequence}` }, exact(timestamp).replace(" UTC", "")),
    h("td", null, h("details", { "data-focus": `record ${sequence}` }, h("summary", null, words(type)), h("pre", null, JSON.stringify(record, null, 2)))),
    h("td", null, actor), h("td", null, resource),
    h("td", null, badge(words(outcome), outcome === "success" ? "good" : outcome === "pending" ? "" : "bad"), " ", severity === "info" ? null : badge(severity, KINDS[severity])));
}
