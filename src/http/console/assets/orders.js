// What operators order: the question about each, and the request that it becomes.

import { call } from "./api.js";
import { refusal } from "./dialog.js";
import { badge, h, words } from "./dom.js";
import { fromField, span } from "./time.js";

const REASONS = ["compromised", "policy_violation", "administrative", "decommissioned", "rotation"];

const initiator = (caller) => ({
  name: "initiated_by", label: "Initiated by", value: caller.identity, required: true, most: 128,
  hint: `Kept beside the one who is signed in, ${caller.identity}`,
});

const compromised = { name: "compromised_at", label: "Compromised since (UTC)", kind: "datetime-local", half: true, hint: "Leave empty when it is not known" };
const notes = { name: "notes", label: "Notes", kind: "long", most: 1024 };
const algorithms = ({ token, policy }) => ({
  name: "algorithm", label: "Algorithm", kind: "select", half: true, value: policy.key.algorithm, options: token.algorithms.map((name) => ({ value: name, label: name })),
});

/** Only what was filled in. */
const filled = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== "" && value !== undefined));

export function rotate(caller, signer) {
  const both = caller.is("operator") && caller.is("security");
  const usual = signer.policy.key.overlap_seconds;
  const body = ({ overlap_hours, emergency = caller.is("security") && !caller.is("operator"), ...rest }) =>
    filled({ ...rest, emergency, overlap_seconds: overlap_hours && !emergency ? Math.round(overlap_hours * 3600) : undefined });
  return {
    title: "Rotate the signing key",
    explain: `A new key is generated in the token and signs from then on. What the old one has signed keeps verifying; the overlap is ${span(usual)} unless you say otherwise.`,
    fields: [
      { name: "reason", label: "Reason", value: "scheduled rotation", required: true, most: 128 },
      initiator(caller), notes, algorithms(signer),
      { name: "overlap_hours", label: "Overlap in hours", kind: "number", half: true, hint: `Empty: ${span(usual)}` },
      ...(both ? [{ name: "emergency", label: "Without overlap", kind: "check", hint: "The old key is retired at once" }] : []),
    ],
    extra: (question) => checklist(question, body),
    confirm: "Rotate", path: "/api/v1/keys/rotate", body,
    done: (rotation) => `${rotation.rotation_id} has begun: ${rotation.new_key_id} signs now.`,
  };
}

/** The dry run: nothing is changed by it. */
function checklist(question, body) {
  const list = h("ul", { class: "checks" });
  const run = async () => {
    try {
      const { data } = await call("POST", "/api/v1/keys/rotate", { body: { ...body(question.values()), dry_run: true } });
      list.replaceChildren(...data.checks.map(({ item, ok, detail }) =>
        h("li", null, badge(ok ? "ok" : "failed", ok ? "good" : "bad"), h("span", null, words(item), detail ? h("span", { class: "muted" }, `: ${detail}`) : null))));
    } catch (error) {
      list.replaceChildren(h("li", null, "", refusal(error)));
    }
  };
  return [h("div", null, h("button", { type: "button", onclick: run }, "Run the checks first")), list];
}

export const generate = (caller, signer) => ({
  title: "Generate a key ahead",
  explain: `The key waits until a rotation activates it. At most ${signer.policy.key.maximum_pending} wait at a time.`,
  fields: [initiator(caller), algorithms(signer)],
  confirm: "Generate", path: "/api/v1/keys", body: filled,
  done: (key) => `${key.key_id} was generated.`,
});

export const revoke = (caller, key) => ({
  title: `Revoke ${key.key_id}`, danger: true, type: key.key_id,
  explain: ["This cannot be undone. No appliance signs with the key afterwards, and everything that it has ever signed is refused.",
    key.state === "active" ? h("p", { class: "trouble" }, "It is the active key: nothing can be signed until there is another. Emergency does both at once.") : ""],
  fields: [{ name: "reason", label: "Reason", kind: "select", half: true, value: "compromised", options: REASONS }, compromised, initiator(caller)],
  confirm: "Revoke the key", path: `/api/v1/keys/${encodeURIComponent(key.key_id)}/revoke`,
  body: (values) => filled({ ...values, compromised_at: fromField(values.compromised_at) }),
  done: ({ key: { key_id }, newly_revoked, time_to_safe_seconds }) =>
    newly_revoked ? `${key_id} is revoked; every appliance was safe after ${time_to_safe_seconds.toFixed(1)} s.` : `${key_id} was revoked before.`,
});

export const emergency = (caller, active) => ({
  title: "Emergency", danger: true, type: active.key_id,
  explain: `Revokes ${active.key_id}, generates a new key and signs with it. Everything that ${active.key_id} has ever signed is refused from then on. This cannot be undone.`,
  fields: [{ name: "reason", label: "Reason", kind: "select", half: true, value: "compromised", options: REASONS }, compromised, initiator(caller), notes],
  confirm: "Revoke and replace", path: "/api/v1/keys/emergency",
  body: (values) => filled({ ...values, key_id: active.key_id, compromised_at: fromField(values.compromised_at) }),
  done: ({ revoked_key, active_key }) => `${revoked_key.key_id} is revoked; ${active_key.key_id} signs now.`,
});

export const destroy = (caller, key) => ({
  title: `Destroy the private key of ${key.key_id}`, danger: true, type: key.key_id,
  explain: "It is removed from the token for good. The public key and the certificate are still served.",
  fields: [initiator(caller), { name: "force", label: "Before the retention has ended", kind: "check", hint: "Otherwise it is refused until then" }],
  confirm: "Destroy the private key", path: `/api/v1/keys/${encodeURIComponent(key.key_id)}/destroy`, body: filled,
  done: ({ key_id }) => `The private key of ${key_id} is destroyed.`,
});

export const complete = (caller, rotation) => ({
  title: `Complete ${rotation.rotation_id}`,
  explain: `${rotation.old_key_id} is retired: it signs nothing, and what it has signed keeps verifying.`,
  fields: [initiator(caller),
    ...(rotation.status === "in_progress" ? [{ name: "force", label: "Before the overlap has ended", kind: "check", hint: "Otherwise it is refused until then" }] : [])],
  confirm: "Complete", path: `/api/v1/rotations/${encodeURIComponent(rotation.rotation_id)}/complete`, body: filled,
  done: () => `${rotation.rotation_id} is completed.`,
});

export const cancel = (caller, rotation) => ({
  title: `Cancel ${rotation.rotation_id}`,
  explain: `${rotation.old_key_id} signs again, and ${rotation.new_key_id} no longer.`,
  fields: [initiator(caller)],
  confirm: "Cancel the rotation", path: `/api/v1/rotations/${encodeURIComponent(rotation.rotation_id)}/cancel`, body: filled,
  done: () => `${rotation.rotation_id} is cancelled.`,
});

export const maintenance = (caller) => ({
  title: "Take this appliance out of service",
  explain: "Nonces and signatures are refused until it is put back. Verification, reads and changes of keys go on.",
  fields: [{ name: "reason", label: "Reason", required: true, hint: "Whoever is turned away reads it" }, initiator(caller)],
  confirm: "Begin maintenance", method: "PUT", path: "/api/v1/maintenance", body: (values) => ({ ...values, on: true }),
  done: () => "This appliance is out of service.",
});

export const service = (caller) => ({
  title: "Put this appliance back in service",
  fields: [initiator(caller)],
  confirm: "End maintenance", method: "PUT", path: "/api/v1/maintenance", body: (values) => ({ ...values, on: false }),
  done: () => "This appliance is in service.",
});

export const rotateTrail = () => ({
  title: "Rotate the audit file",
  explain: "The file is closed under a name of its own, and a new one begins. Nothing is lost.",
  confirm: "Rotate", path: "/api/v1/audit/rotate",
  done: ({ closed }) => (closed ? `Closed as ${closed}.` : "Somebody else has just closed it."),
});

export const cleanUp = () => ({
  title: "Clean up the nonce store",
  explain: "Nonces whose window has ended are forgotten. It happens by itself as well.",
  confirm: "Clean up", path: "/api/v1/nonce/cleanup",
  done: ({ removed }) => `${removed} nonces were forgotten.`,
});

export const block = (caller) => ({
  title: "Block somebody",
  fields: [
    { name: "kind", label: "Whom", kind: "select", value: "address", options: [{ value: "address", label: "an address or a network" }, { value: "client", label: "a client" }, { value: "subject", label: "a subject" }] },
    { name: "target", label: "Address, network or name", required: true, hint: "Such as 192.0.2.7 or 2001:db8::/48" },
    { name: "reason", label: "Reason", required: true }, initiator(caller),
    { name: "hours", label: "For how many hours", kind: "number", value: "24", hint: "Empty: until it is lifted" },
  ],
  confirm: "Block", danger: true, path: "/api/v1/blocks",
  body: ({ kind, target, hours, ...rest }) => filled({ ...rest, [kind]: target, duration_seconds: hours ? Math.round(hours * 3600) : undefined }),
  done: ({ address, client, subject }) => `${address ?? client ?? subject} is blocked.`,
});

export const lift = (caller, { id, address, client, subject }) => ({
  title: `Lift the block of ${address ?? client ?? subject}`,
  fields: [initiator(caller)],
  confirm: "Lift", method: "DELETE", path: `/api/v1/blocks/${encodeURIComponent(id)}`, body: filled,
  done: () => `${address ?? client ?? subject} is no longer blocked.`,
});
