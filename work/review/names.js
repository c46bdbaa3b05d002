// Asking for a name: a combobox with the people who have one.
import { bdi, fill, h, say } from "./dom.js";
import { freshPeople, namedPeople, plain } from "./library.js";
import { t } from "./texts.js";

const MOST = 8; // people offered at a time
const LONGEST = 200; // characters of a name

/** Those of the named people a typed text may mean; whole beginnings first. */
export function offered(text, people, without = new Set()) {
  const wanted = plain(text.trim());
  const fits = people.filter(({ id, name }) => !without.has(id) && plain(name).includes(wanted));
  const rank = ({ name }) => (plain(name) === wanted ? 0 : plain(name).startsWith(wanted) ? 1 : 2);
  return fits.sort((a, b) => rank(a) - rank(b) || b.faces - a.faces).slice(0, MOST);
}

/**
 * Ask for a person. Answers {name} for a new one, {to: id, name} for one of the list, null when left.
 * `known` says what choosing one of the list does.
 */
export async function askName({ title, value = "", known = t("name.join"), without = [], empty = false }) {
  await freshPeople().catch(() => {});
  const named = namedPeople();
  return new Promise((resolve) => dialog({ title, value, known, named, without: new Set(without), empty }, resolve));
}

function dialog({ title, value, known, named, without, empty }, resolve) {
  const back = document.activeElement;
  let options = [], at = -1;
  const list = h("ul", { role: "listbox", id: "name-list", "aria-label": t("name.known") });
  const input = h("input", {
    id: "name-input", type: "text", value, maxLength: LONGEST, autocomplete: "off", spellcheck: false, role: "combobox",
    "aria-expanded": "true", "aria-controls": "name-list", "aria-autocomplete": "list", dir: "auto",
  });
  const show = () => {
    options = offered(input.value, named, without);
    const text = input.value.trim();
    const exact = options.length > 0 && plain(options[0].name) === plain(text);
    if (text && !exact) options.unshift({ name: text });
    else if (text) options.splice(1, 0, { name: text });
    at = text ? 0 : -1;
    fill(list, ...options.map((one, n) => h("li", {
      role: "option", id: `name-${n}`, onmousedown: (event) => event.preventDefault(), onclick: () => finish(options[n]),
    }, bdi(one.name), h("small", {}, one.id ? `${known} · ${t("faces", { n: one.faces })}` : t("name.new")))));
    mark();
  };
  const mark = () => {
    [...list.children].forEach((li, n) => li.setAttribute("aria-selected", n === at));
    input.setAttribute("aria-activedescendant", at < 0 ? "" : `name-${at}`);
    list.children[at]?.scrollIntoView({ block: "nearest" });
  };
  const box = h("dialog", { class: "ask", "aria-labelledby": "name-title" },
    h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); keep(); } },
      h("label", { for: "name-input", id: "name-title" }, title), input, list,
      h("p", { class: "buttons" },
        h("button", { type: "submit", class: "main" }, `${t("keep")} · Enter`),
        h("button", { type: "button", onclick: () => finish(null) }, `${t("leave")} · Esc`))));
  const finish = (chosen) => {
    box.close();
    box.remove();
    if (back?.isConnected) back.focus({ preventScroll: true });
    resolve(chosen && (chosen.id ? { to: chosen.id, name: chosen.name } : { name: chosen.name }));
  };
  const keep = () => {
    if (at >= 0 && options[at]) return finish(options[at]);
    if (!input.value.trim() && empty) return finish({ name: "" });
    return say(t("name.missing"), true);
  };
  input.addEventListener("input", show);
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !options.length) return;
    event.preventDefault();
    at = (at + step + options.length) % options.length;
    mark();
  });
  box.addEventListener("cancel", (event) => { event.preventDefault(); finish(null); });
  document.body.append(box);
  box.showModal();
  input.focus();
  input.select();
  show();
  if (value) { at = -1; mark(); }
}

/** Ask for one line of text; null when left. */
export function askText({ title, value = "", type = "text", hint = "", pattern = "" }) {
  const back = document.activeElement;
  return new Promise((resolve) => {
    const input = h("input", { id: "text-input", type: "text", inputMode: type, value, maxLength: LONGEST, autocomplete: "off", ...(pattern ? { pattern } : {}) });
    const finish = (text) => {
      box.close();
      box.remove();
      if (back?.isConnected) back.focus({ preventScroll: true });
      resolve(text);
    };
    const box = h("dialog", { class: "ask" },
      h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); if (input.reportValidity()) finish(input.value.trim()); } },
        h("label", { for: "text-input" }, title), input, hint && h("p", { class: "hint" }, hint),
        h("p", { class: "buttons" },
          h("button", { type: "submit", class: "main" }, `${t("keep")} · Enter`),
          h("button", { type: "button", onclick: () => finish(null) }, `${t("leave")} · Esc`))));
    box.addEventListener("cancel", (event) => { event.preventDefault(); finish(null); });
    document.body.append(box);
    box.showModal();
    input.select();
  });
}
