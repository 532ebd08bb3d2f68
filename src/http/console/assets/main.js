// The board: who is signed in, what they may see, and how it stands now.

import * as activity from "./activity.js";
import { approvals } from "./approvals.js";
import { NoAnswer, Refused, read } from "./api.js";
import { audit, filter, search } from "./audit.js";
import { blocks } from "./blocks.js";
import { byId, draw, forgetDrawing, h } from "./dom.js";
import * as health from "./health.js";
import { keys } from "./keys.js";
import { Poll } from "./poll.js";
import { rotations } from "./rotations.js";
import { service } from "./service.js";
import { Caller, hasKey, signIn, signOut } from "./session.js";
import { now, span, tick } from "./time.js";

/** What is read, by which route it is allowed. */
const SOURCES = {
  signer: ["/api/v1/signer"],
  activity: ["/api/v1/activity"],
  nonces: ["/api/v1/nonce/stats"],
  rotations: ["/api/v1/rotations"],
  approvals: ["/api/v1/approvals"],
  maintenance: ["/api/v1/maintenance"],
  blocks: ["/api/v1/blocks"],
  audit: ["/api/v1/audit", search],
};

/** A panel for each source that needs one of its own; others have none to hide. */
const PANELS = { keys: "signer", rotations: "rotations", approvals: "approvals", blocks: "blocks", audit: "audit", service: "maintenance" };

let heardAt = null;
let lost = null;
const poll = new Poll(round);
const again = () => poll.soon();

async function round() {
  try {
    const caller = new Caller(await read("/api/v1/me"));
    heardAt = now();
    lost = null;
    if (caller.mustSignIn) return askWho(hasKey() ? "This key opens nothing here: its client has no role." : "");
    return await show(caller);
  } catch (error) {
    return failed(error);
  } finally {
    link();
  }
}

async function show(caller) {
  if (caller.may("GET", SOURCES.audit[0])) await filter(again);
  const wanted = Object.entries(SOURCES).filter(([, [path]]) => caller.may("GET", path));
  const looked = await Promise.allSettled([
    read("/healthz", { also: [503] }),
    ...wanted.map(([, [path, special]]) => (special ? special() : read(path))),
  ]);
  const state = { caller, troubles: [] };
  ["health", ...wanted.map(([name]) => name)].forEach((name, at) => {
    const { status, value, reason } = looked[at];
    if (status === "fulfilled") state[name] = value;
    else if (reason instanceof Refused) state.troubles.push({ what: name, text: `${reason.message}. ${reason.problem.detail ?? ""}` });
    else throw reason;
  });
  paint(state);
  const wait = Math.max(0, ...looked.map(({ reason }) => reason?.retryAfter ?? 0));
  return { failed: state.troubles.length > 0, wait };
}

function paint(state) {
  const { caller } = state;
  byId("sign-in").hidden = true;
  byId("board").hidden = false;
  byId("no-role").hidden = caller.may("GET", SOURCES.signer[0]);
  byId("no-role").textContent = `${caller.identity} may see nothing here: the roles ${caller.roles.join(", ")} are for programs.`;
  byId("caller").textContent = `${caller.identity} (${caller.roles.length === 5 ? "every role" : caller.roles.join(", ")})`;
  byId("sign-out").hidden = !hasKey();
  for (const [panel, source] of Object.entries(PANELS)) byId(panel).hidden = !caller.may("GET", SOURCES[source][0]);
  if (state.signer) {
    const { name, signer_id, version } = state.signer;
    byId("who-signs").textContent = `${name || signer_id} ${version}`;
    document.title = `${name || signer_id}: ${state.health?.status ?? ""}`;
    keys(state, again);
  }
  if (state.activity) activity.note(state.activity);
  if (state.health) {
    health.status(state.health);
    health.warnings(state.health, state.troubles);
  }
  tiles(state);
  for (const [name, part] of Object.entries({ rotations, approvals, blocks, audit })) if (state[name]) part(state, again);
  if (caller.may("GET", SOURCES.maintenance[0])) service(state, again);
  tick();
}

function tiles(state) {
  draw(byId("tiles"), [state.activity, state.nonces, state.health], () => [
    state.activity && activity.rateTile(state.activity),
    state.activity && activity.latencyTile(state.activity),
    state.nonces && health.nonceTile(state.nonces),
    state.health && health.dependsTile(state.health),
  ]);
}

function failed(error) {
  if (error instanceof Refused && error.status === 401) {
    askWho(error.problem.detail ?? error.message);
    return { failed: false };
  }
  if (!(error instanceof NoAnswer) && !(error instanceof Refused)) throw error;
  lost = error instanceof Refused ? error.message : "No answer";
  return { failed: true, wait: error.retryAfter ?? 0 };
}

function link() {
  const place = byId("link");
  place.className = lost ? "lost" : "muted";
  place.textContent = lost ? `${lost}${heardAt ? `; this is ${span((now() - heardAt) / 1000)} old` : ""}` : "";
  byId("board").classList.toggle("stale", Boolean(lost));
}

/** Nothing of what was shown to somebody stays for somebody else. */
function askWho(trouble) {
  poll.stop();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  byId("audit-filter").reset();
  byId("said").replaceChildren();
  signOut();
  activity.forget();
  byId("board").hidden = true;
  for (const id of ["tiles", "warnings", "key-actions", "timeline", "rotation-list", "approval-list", "service-list", "block-actions", "block-list", "audit-list"]) forgetDrawing(byId(id));
  for (const id of ["caller", "who-signs", "status"]) byId(id).textContent = "";
  document.title = "verification-signer";
  byId("sign-out").hidden = true;
  byId("no-role").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-in-trouble").hidden = !trouble;
  byId("sign-in-trouble").textContent = trouble;
  byId("bearer").focus();
  return {};
}

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(byId("bearer").value);
  byId("bearer").value = "";
  poll.start();
});
byId("sign-out").addEventListener("click", () => askWho(""));
// Browsers keep pages that were left, to come back to: as if nobody had signed in.
addEventListener("pagehide", () => askWho(""));
addEventListener("pageshow", (event) => { if (event.persisted) poll.start(); });
setInterval(() => { tick(); link(); }, 1000);
poll.start();
