// What keeps the signer running: maintenance, a sign test, the audit file, the nonce store.

import { call } from "./api.js";
import { ask, refusal } from "./dialog.js";
import { byId, draw, h } from "./dom.js";
import * as orders from "./orders.js";
import { moment } from "./time.js";

export function service({ caller, maintenance }, after) {
  draw(byId("service-list"), [maintenance, caller.roles], () => h("ul", { class: "rows" },
    maintenance && task("Maintenance",
      maintenance.on ? [`Out of service: ${maintenance.reason}, by ${maintenance.initiated_by}, `, moment(maintenance.since)] : "This appliance is in service.",
      caller.may("PUT", "/api/v1/maintenance") && button("maintenance", maintenance.on ? "End…" : "Begin…", "maintenance", () =>
        ask(maintenance.on ? orders.service(caller) : orders.maintenance(caller)).then(after))),
    caller.may("POST", "/api/v1/sign/test") && signTest(),
    caller.may("POST", "/api/v1/audit/rotate") && task("Audit file", "Close it, and begin a new one.",
      button("audit-rotate", "Rotate…", "the audit file", () => ask(orders.rotateTrail()).then(after))),
    caller.may("POST", "/api/v1/nonce/cleanup") && task("Nonce store", "Forget nonces whose window has ended.",
      button("cleanup", "Clean up…", "the nonce store", () => ask(orders.cleanUp()).then(after)))));
}

const button = (id, text, of, onclick) =>
  h("button", { type: "button", id, "data-focus": id, "aria-label": `${text.replace("…", "")} ${of}`, onclick }, text);

const task = (name, text, action, more) =>
  h("li", null, h("div", { class: "task" }, h("div", null, h("b", null, name), h("p", { class: "muted" }, text)), action), more);

function signTest() {
  const outcome = h("div", { role: "status", id: "sign-test-outcome" });
  const run = async () => {
    const begun = performance.now();
    try {
      const { data } = await call("POST", "/api/v1/sign/test");
      const took = Math.round(performance.now() - begun);
      outcome.replaceChildren(h("p", null, `${data.key_id} has signed and verified with ${data.algorithm}: ${took} ms from here and back.`));
    } catch (error) {
      outcome.replaceChildren(refusal(error));
    }
  };
  return task("Sign test", "The active key signs a canary in the token, and it is verified.", button("sign-test", "Sign", "a canary", run), outcome);
}
