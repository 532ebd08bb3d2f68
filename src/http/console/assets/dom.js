// Elements. What the server says goes in as text, never as markup: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes; `on…` are listeners, `false` and `null` are left out. */
export const h = (tag, attributes, ...children) => furnished(document.createElement(tag), attributes, children);

/** The same of a drawing. */
export const s = (tag, attributes, ...children) => furnished(document.createElementNS(SVG, tag), attributes, children);

function furnished(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

const drawn = new WeakMap();

/** Draws anew only what has changed, and leaves the focus where it was: whoever works with the keyboard
 *  must not lose their place every few seconds. */
export function draw(place, content, build) {
  const mark = JSON.stringify(content);
  if (drawn.get(place) === mark) return;
  drawn.set(place, mark);
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  const open = new Set([...place.querySelectorAll("details[open]")].map((details) => details.dataset.focus));
  place.replaceChildren(...[build()].flat(Infinity).filter(Boolean));
  for (const details of place.querySelectorAll("details")) details.open = open.has(details.dataset.focus);
  if (focused) place.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

/** Nothing of it stays. */
export function forgetDrawing(place) {
  drawn.delete(place);
  place.replaceChildren();
}

export const badge = (text, kind = "") => h("span", { class: `badge ${kind}` }, text);

/** `policy_violation` as people write it. */
export const words = (name) => String(name).replaceAll("_", " ");

let silence;

/** Says what has happened, to the eye and to screen readers. */
export function say(text) {
  const place = byId("said");
  place.textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => place.replaceChildren(), 8000);
}
