// The help of the keys and the settings.
import { browserStore, h, say } from "./dom.js";
import { KEYS, isSingle, keyLabel, keySettings, keysOf } from "./keys.js";
import { language, setLanguage, t } from "./texts.js";

const SCOPES = ["all", "grid", "people", "person", "same", "look", "whose", "halves", "photo"];

function modal(title, ...children) {
  const back = document.activeElement;
  const box = h("dialog", { class: "sheet", "aria-labelledby": "dialog-title" },
    h("header", {}, h("h1", { id: "dialog-title", tabIndex: -1 }, title), h("button", { type: "button", class: "close", onclick: () => box.close(), "aria-label": t("close") }, "✕")), children);
  box.addEventListener("close", () => {
    box.remove();
    if (back?.isConnected) back.focus({ preventScroll: true });
    else document.getElementById("main").focus();
  });
  document.body.append(box);
  box.showModal();
  box.querySelector("h1").focus();
  return box;
}

/** The keys of one scope as rows of a table. */
function rows(scope) {
  return KEYS.filter((entry) => entry.scopes.includes(scope)).map((entry) => h("tr", { "data-entry": entry.id },
    h("th", { scope: "row" }, keysOf(entry).map((key, at) => [at ? " " : "", h("kbd", {}, keyLabel(key))])), h("td", {}, t(`act.${entry.id}`))));
}

/** All keys, those of the present screen first. */
export function help(screen) {
  const order = [...new Set([screen, "grid", "all", ...SCOPES])].filter((scope) => SCOPES.includes(scope));
  modal(t("act.help"), h("div", { class: "key-help" }, order.map((scope) => h("section", {}, h("h2", {}, t(`scope.${scope}`)), h("table", {}, h("tbody", {}, rows(scope)))))));
}

/** Language, single keys on or off, each single key changed. */
export function settings(changed) {
  const now = keySettings();
  const keep = () => {
    browserStore.set("keys", now);
    changed();
  };
  const languages = h("select", { id: "set-lang", onchange: () => { setLanguage(languages.value); box.close(); changed(true); settings(changed); } },
    [["en", "English"], ["de", "Deutsch"]].map(([value, text]) => h("option", { value, lang: value, selected: value === language() }, text)));
  const single = h("input", { type: "checkbox", id: "set-single", checked: now.single, onchange: () => { now.single = single.checked; keep(); } });
  const changeable = KEYS.filter((entry) => entry.keys.some((key) => /^[^ ]$/.test(key)));
  const inputs = changeable.map((entry) => {
    const usual = entry.keys.filter((key) => /^[^ ]$/.test(key))[0];
    const input = h("input", { type: "text", id: `set-${entry.id}`, maxLength: 1, size: 2, placeholder: usual, value: now.map[entry.id] || "", autocomplete: "off" });
    input.addEventListener("input", () => {
      const key = input.value.trim().toLowerCase();
      const clash = key && KEYS.find((other) => other.id !== entry.id && overlap(other, entry) && keysOf(other, { ...now, single: true }).includes(key));
      if (clash) {
        input.value = now.map[entry.id] || "";
        return say(t("settings.clash", { key, what: t(`act.${clash.id}`) }), true);
      }
      if (key && isSingle(key)) now.map[entry.id] = key;
      else delete now.map[entry.id];
      return keep();
    });
    return h("li", {}, h("label", { for: `set-${entry.id}` }, t(`act.${entry.id}`)), h("small", {}, entry.scopes.map((scope) => t(`scope.${scope}`)).join(", ")), input);
  });
  const box = modal(t("act.settings"),
    h("p", {}, h("label", { for: "set-lang" }, `${t("settings.language")} `), languages),
    h("p", {}, single, h("label", { for: "set-single" }, ` ${t("settings.single")}`)), h("p", { class: "hint" }, t("settings.hint")),
    h("h2", {}, t("settings.keys")), h("ul", { class: "remap" }, inputs),
    h("p", { class: "buttons" }, h("button", { type: "button", onclick: () => { now.map = {}; keep(); box.close(); settings(changed); } }, t("settings.reset"))));
}

/** Whether two entries could be meant by one press. */
function overlap(a, b) {
  const all = a.scopes.includes("all") || b.scopes.includes("all");
  const grids = (one, other) => one.scopes.includes("grid") && other.scopes.some((scope) => ["people", "person"].includes(scope));
  return all || grids(a, b) || grids(b, a) || a.scopes.some((scope) => b.scopes.includes(scope));
}
