// Small parts that several screens show.
import { bdi, face, h } from "./dom.js";
import { keyOf } from "./keys.js";
import { called } from "./library.js";
import { t } from "./texts.js";

/** A button that does what a key does, with the key on it. */
export function keyButton(id, act, { text = t(`act.${id}`), main = false, pressed } = {}) {
  const key = keyOf(id);
  return h("button", {
    type: "button", class: main ? "main" : "", "data-act": id, onclick: () => act(), "aria-keyshortcuts": key || undefined,
    "aria-pressed": pressed === undefined ? undefined : String(pressed),
  }, h("span", {}, text), key && h("kbd", {}, key));
}

/** A row of buttons of which one is pressed. */
export function chips(label, options, chosen, choose) {
  return h("div", { class: "chips", role: "group", "aria-label": label }, options.map(([value, text]) => h("button", {
    type: "button", "aria-pressed": String(value === chosen), "data-value": value, onclick: () => choose(value),
  }, text)));
}

/** A choice of one of several, as a select. */
export function choice(label, options, chosen, choose) {
  const el = h("select", { "aria-label": label, onchange: () => choose(el.value) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  return h("label", { class: "choice" }, h("span", {}, label), el);
}

/** A person as a name, an unnamed one in grey. */
export const personName = (name) => h("span", { class: name ? "name" : "name none" }, bdi(called(name)));

/** Years of a side: "1998-2004", "" where no photo is dated. */
export function span(years) {
  const [a, b] = years || [];
  if (!a) return "";
  return a === b ? `${a}` : `${a}–${b}`;
}

/** A set as short as it can be told: "set 003". */
export const setName = (id) => `${t("set")} ${id.replace(/^faceset_/, "")}`;

/** What to say while there is nothing to show. */
export function empty(text, ...buttons) {
  return h("div", { class: "empty" }, h("p", {}, text), h("p", { class: "buttons" }, buttons));
}

/** An error where a list would stand, with a way to try again. */
export function failed(error, again) {
  return empty(t(error?.status === 404 ? "error.gone" : error?.status ? "error.refused" : "error.away"),
    h("button", { type: "button", onclick: again }, t("again")));
}

/** A few faces in a row. */
export function faceRow(faces, px) {
  return h("span", { class: "face-row" }, faces.map(({ thumb: hash }) => face(hash, px)));
}

/** A bar for what is chosen; hidden while nothing is. */
export function chosenBar() {
  return h("div", { class: "chosen-bar", role: "region", "aria-label": t("chosen.bar"), hidden: true });
}
