// Requests that wait for others. Who approves says what: the digest of the very content that is shown.

import { ask } from "./dialog.js";
import { badge, byId, draw, h, words } from "./dom.js";
import { moment } from "./time.js";

const KINDS = { pending: "warn", approved: "good", rejected: "bad", expired: "", used: "" };
const SHOWN = 6;

/** Where each operation is asked for. */
const PATHS = {
  generate: () => "/api/v1/keys",
  rotate: () => "/api/v1/keys/rotate",
  emergency: () => "/api/v1/keys/emergency",
  revoke: (target) => `/api/v1/keys/${target}/revoke`,
  destroy: (target) => `/api/v1/keys/${target}/destroy`,
  complete: (target) => `/api/v1/rotations/${target}/complete`,
  cancel: (target) => `/api/v1/rotations/${target}/cancel`,
};

export function approvals({ caller, approvals }, after) {
  draw(byId("approval-list"), [approvals, caller.roles, caller.identity], () =>
    approvals.length
      ? h("ul", { class: "rows" }, approvals.slice(0, SHOWN).map((request) => row(request, caller, after)))
      : h("p", { class: "empty" }, "Nothing waits for approval."));
}

function row(request, caller, after) {
  const { approval_id, status, operation, target, content, requested_by, expires_at, approvals, needed, rejection } = request;
  return h("li", { "data-approval": approval_id, "data-status": status },
    h("div", { class: "line" }, h("b", null, `${words(operation)} ${target}`), badge(status, KINDS[status]),
      h("span", { class: "muted" }, `${approvals.length} of ${needed.count} from ${needed.roles.join(" or ")}`)),
    h("p", { class: "muted" }, "asked for by ", requested_by, status === "pending" && [", until ", moment(expires_at)],
      approvals.length > 0 && `; approved by ${approvals.map(({ by }) => by).join(", ")}`,
      rejection && `; rejected by ${rejection.by}: ${rejection.reason || "no reason given"}`),
    h("details", { "data-focus": `content ${approval_id}` }, h("summary", null, "What exactly"), h("pre", null, JSON.stringify(content, null, 2))),
    h("div", { class: "actions" }, buttons(request, caller, after)));
}

function buttons(request, caller, after) {
  const { approval_id, status, requested_by, needed, approvals } = request;
  const own = requested_by === caller.identity;
  const holds = needed.roles.some((role) => caller.is(role)) && !approvals.some(({ by }) => by === caller.identity);
  const button = (text, order, kind) =>
    h("button", { type: "button", class: kind, "data-focus": `${text} ${approval_id}`, "aria-label": `${text.replace("…", "")} ${approval_id}`, onclick: () => ask(order).then(after) }, text);
  return [
    status === "pending" && !own && holds && button("Approve…", approve(request)),
    ["pending", "approved"].includes(status) && (own || holds) && button(own ? "Take back…" : "Reject…", reject(request, own), "danger"),
    status === "approved" && own && button("Carry out…", carryOut(request)),
  ];
}

const shown = ({ content }) => h("pre", null, JSON.stringify(content, null, 2));

const approve = (request) => ({
  title: `Approve: ${words(request.operation)} ${request.target}`,
  explain: [`Asked for by ${request.requested_by}. You approve exactly this:`, shown(request)],
  confirm: "Approve", path: `/api/v1/approvals/${encodeURIComponent(request.approval_id)}/approve`,
  body: () => ({ digest: request.digest }),
  done: () => `${request.approval_id} has your approval.`,
});

const reject = (request, own) => ({
  title: `${own ? "Take back" : "Reject"}: ${words(request.operation)} ${request.target}`,
  fields: [{ name: "reason", label: "Reason" }],
  confirm: own ? "Take back" : "Reject", danger: true,
  path: `/api/v1/approvals/${encodeURIComponent(request.approval_id)}/reject`, body: (values) => values,
  done: () => `${request.approval_id} is closed.`,
});

const carryOut = (request) => ({
  title: `Carry out: ${words(request.operation)} ${request.target}`,
  explain: ["It is approved, exactly as it stands here:", shown(request)],
  type: ["revoke", "destroy", "emergency"].includes(request.operation) ? request.target : undefined,
  confirm: "Carry out", danger: true, path: PATHS[request.operation](encodeURIComponent(request.target)),
  body: () => request.content, headers: { "Approval-Id": request.approval_id },
  done: () => `${words(request.operation)} ${request.target}: done.`,
});
