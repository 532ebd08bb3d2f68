// Questions before something is changed, and what came of it. A change of keys that got no answer can be
// sent again: it carries the same Idempotency-Key, so it is done once.

import { NoAnswer, Refused, call, freshKey } from "./api.js";
import { h, say, words } from "./dom.js";

/** Where the server takes an Idempotency-Key. */
const ONCE = /^\/api\/v1\/(keys|rotations)(\/|$)/;

/** Asks, and sends what was asked for. `order` has `title`, `explain`, `fields`, `type` (what must be typed to
 *  confirm), `confirm` (the button), `danger`, `extra` (elements with their own buttons), `method`, `path`,
 *  `body(values)`, `headers`, `done(answer)`. Resolves when it is closed. */
export function ask(order) {
  return new Promise((resolve) => new Question(order, resolve));
}

class Question {
  constructor(order, resolve) {
    this.order = order;
    this.key = freshKey();
    this.outcome = h("div", { role: "alert" });
    this.submit = h("button", { type: "submit", class: `primary ${order.danger ? "danger" : ""}` }, order.confirm);
    this.close = h("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel");
    const fields = h("div", { class: "fields" }, (order.fields ?? []).map(field), this.typed());
    const body = [this.explanation(), fields, order.extra?.(this), this.outcome];
    this.opener = document.activeElement?.dataset.focus;
    this.form = h("form", { method: "dialog", onsubmit: (event) => this.send(event), oninput: () => this.changed() },
      h("h2", { id: "question" }, order.title), body, h("div", { class: "buttons" }, this.close, this.submit));
    this.dialog = h("dialog", { "aria-labelledby": "question", onclose: () => this.end(resolve) }, this.form);
    document.body.append(this.dialog);
    this.unlock();
    this.dialog.showModal();
    (this.form.querySelector("input, select, textarea") ?? this.close).focus();
  }

  explanation() {
    return [this.order.explain ?? []].flat().map((part) => (typeof part === "string" ? h("p", { class: "hint" }, part) : part));
  }

  typed() {
    if (!this.order.type) return null;
    this.confirmation = h("input", { id: "typed", name: "typed", class: "mono", autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
    return h("div", { class: "field" },
      h("label", { for: "typed" }, "Type ", h("code", null, this.order.type), " to confirm"), this.confirmation);
  }

  /** What was typed wrong sends nothing, however the form is submitted. */
  unlock() {
    this.submit.disabled = Boolean(this.sending) || (this.confirmation !== undefined && this.confirmation.value !== this.order.type);
  }

  /** Other content is another request. */
  changed() {
    if (!this.sending) this.key = freshKey();
    this.unlock();
  }

  values() {
    const values = {};
    for (const { name, kind } of this.order.fields ?? []) {
      const input = this.form.elements[name];
      values[name] = kind === "check" ? input.checked : input.value.trim();
    }
    return values;
  }

  async send(event) {
    event.preventDefault();
    this.unlock();
    if (this.submit.disabled) return;
    const { method = "POST", path, body, headers } = this.order;
    this.busy(true);
    try {
      const answer = await call(method, path, { body: body?.(this.values()), headers: { "Idempotency-Key": this.key, ...headers } });
      if (answer.status === 202) this.waits(answer.data);
      else this.finish(this.order.done?.(answer.data));
    } catch (error) {
      this.outcome.replaceChildren(refusal(error, ONCE.test(path)));
      if (error instanceof NoAnswer) this.submit.textContent = "Send again";
    } finally {
      this.busy(false);
    }
  }

  busy(sending) {
    this.sending = sending;
    this.unlock();
    this.form.setAttribute("aria-busy", sending);
  }

  finish(text) {
    if (text) say(text);
    this.dialog.close();
  }

  /** Dual control: the request is on its way to others. */
  waits({ approval_id, needed }) {
    const who = needed.roles.map(words).join(" or ");
    this.outcome.replaceChildren(h("p", { class: "notice" },
      `Not done yet: ${needed.count === 1 ? "somebody else" : `${needed.count} others`} with the role ${who} must approve it. `,
      `It waits under Approvals as ${approval_id}; carry it out there when it is approved.`));
    this.submit.hidden = true;
    this.close.textContent = "Close";
    this.close.focus();
  }

  /** The focus goes back to the button that asked, also when it was drawn anew meanwhile. */
  end(resolve) {
    this.dialog.remove();
    if (this.opener) document.querySelector(`[data-focus="${CSS.escape(this.opener)}"]`)?.focus();
    resolve();
  }
}

function field({ name, label, kind = "text", value = "", options, hint, required, half, most = 256 }) {
  const id = `field-${name}`;
  const about = hint ? h("span", { id: `${id}-hint`, class: "hint" }, hint) : null;
  const common = { id, name, required, "aria-describedby": hint ? `${id}-hint` : null };
  if (kind === "check") {
    return h("div", { class: "check" }, h("input", { ...common, type: "checkbox", checked: Boolean(value) }),
      h("div", null, h("label", { for: id }, label), h("br"), about));
  }
  const input = kind === "select"
    ? h("select", common, options.map((option) => h("option", { value: option.value ?? option, selected: (option.value ?? option) === value }, option.label ?? words(option))))
    : kind === "long" ? h("textarea", { ...common, rows: 2, maxlength: most }, value)
    : h("input", { ...common, type: kind, value, maxlength: most, autocomplete: "off", step: kind === "number" ? "any" : null, min: kind === "number" ? 0 : null });
  return h("div", { class: half ? "field half" : "field" }, h("label", { for: id }, label), input, about);
}

/** Why something was not done, and what to do. */
export function refusal(error, once = false) {
  if (error instanceof Refused) {
    const { detail, errors = [], request_id } = error.problem;
    return h("div", { class: "refusal" }, h("b", null, error.message), h("p", null, detail ?? ""),
      errors.length > 1 ? h("ul", null, errors.map((one) => h("li", null, `${one.field}: ${one.detail}`))) : null,
      request_id ? h("p", { class: "hint" }, "Request ", h("code", null, request_id)) : null);
  }
  if (error instanceof NoAnswer) {
    return h("div", { class: "refusal" }, h("b", null, "No answer came"),
      h("p", null, "Whether it was done is not known. ", once ? "Sending it again is safe: the same request is not carried out twice." : "See how it stands before you send it again."));
  }
  throw error;
}
