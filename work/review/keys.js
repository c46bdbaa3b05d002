// The one table of keys: it drives the handlers, the help, the tests and docs/review.md.
import { browserStore } from "./dom.js";

// id, keys, scopes it works in, and whether a held key may repeat it. Scopes: all, grid (focus in a
// grid of tiles), or a screen. Single letters can be remapped or switched off in the settings.
export const KEYS = [
  { id: "same", keys: ["y", "j"], scopes: ["same", "look", "halves"] },
  { id: "different", keys: ["n"], scopes: ["same", "look", "halves"] },
  { id: "skip", keys: ["s"], scopes: ["same", "look", "whose"] },
  { id: "choice", keys: ["1", "2", "3"], scopes: ["whose"] },
  { id: "choiceAll", keys: ["Shift+1", "Shift+2", "Shift+3"], scopes: ["whose"] },
  { id: "typeName", keys: ["t"], scopes: ["whose"] },
  { id: "side", keys: ["ArrowLeft", "ArrowRight"], scopes: ["same", "look"], repeat: true },
  { id: "undo", keys: ["u", "Ctrl+z"], scopes: ["all"] },
  { id: "redo", keys: ["Shift+u", "Ctrl+y", "Ctrl+Shift+z"], scopes: ["all"] },
  { id: "move", keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"], scopes: ["grid"], repeat: true },
  { id: "moveOnly", keys: ["Ctrl+ArrowLeft", "Ctrl+ArrowRight", "Ctrl+ArrowUp", "Ctrl+ArrowDown", "Ctrl+Home", "Ctrl+End"], scopes: ["grid"], repeat: true },
  { id: "range", keys: ["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown", "Shift+Home", "Shift+End"], scopes: ["grid"], repeat: true },
  { id: "toggle", keys: ["Space", "Ctrl+Space"], scopes: ["grid"] },
  { id: "chooseAll", keys: ["Ctrl+a"], scopes: ["people", "person"] },
  { id: "invert", keys: ["Ctrl+i"], scopes: ["people", "person"] },
  { id: "none", keys: ["Escape"], scopes: ["people", "person"] },
  { id: "open", keys: ["Enter"], scopes: ["grid", "same", "look"] },
  { id: "photo", keys: ["p"], scopes: ["person", "whose", "same", "look"] },
  { id: "name", keys: ["F2", "r"], scopes: ["people", "person", "photo", "same", "look"] },
  { id: "merge", keys: ["m"], scopes: ["people"] },
  { id: "ignore", keys: ["i"], scopes: ["people", "person", "same", "look", "whose"] },
  { id: "hide", keys: ["h"], scopes: ["people", "person"] },
  { id: "notThis", keys: ["x"], scopes: ["person", "photo"] },
  { id: "moveTo", keys: ["t"], scopes: ["person", "photo"] },
  { id: "split", keys: ["l"], scopes: ["person"] },
  { id: "halves", keys: ["w"], scopes: ["person"] },
  { id: "notFace", keys: ["0"], scopes: ["person", "photo", "whose"] },
  { id: "best", keys: ["b"], scopes: ["person", "photo"] },
  { id: "keep", keys: ["k"], scopes: ["person"] },
  { id: "drop", keys: ["Shift+k"], scopes: ["person"] },
  { id: "born", keys: ["o"], scopes: ["person"] },
  { id: "add", keys: ["a"], scopes: ["photo"] },
  { id: "edit", keys: ["e"], scopes: ["photo"] },
  { id: "boxMove", keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], scopes: ["photo"], repeat: true },
  { id: "boxSize", keys: ["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown"], scopes: ["photo"], repeat: true },
  { id: "boxKeep", keys: ["Enter"], scopes: ["photo"] },
  { id: "leave", keys: ["Escape"], scopes: ["photo", "halves"] },
  { id: "date", keys: ["d"], scopes: ["photo"] },
  { id: "details", keys: ["d"], scopes: ["same", "look", "whose"] },
  { id: "former", keys: [","], scopes: ["person", "photo"], repeat: true },
  { id: "next", keys: ["."], scopes: ["person", "photo"], repeat: true },
  { id: "search", keys: ["/"], scopes: ["all"] },
  { id: "help", keys: ["?"], scopes: ["all"] },
  { id: "settings", keys: ["g e"], scopes: ["all"] },
  { id: "goPeople", keys: ["g p"], scopes: ["all"] },
  { id: "goSame", keys: ["g s"], scopes: ["all"] },
  { id: "goWhose", keys: ["g w"], scopes: ["all"] },
  { id: "goLook", keys: ["g l"], scopes: ["all"] },
  { id: "goHistory", keys: ["g h"], scopes: ["all"] },
  { id: "goApply", keys: ["g a"], scopes: ["all"] },
];

const CHORD_MS = 1500; // after g, for the letter of a screen
const TAKES_TEXT = "input:not([type=checkbox]):not([type=radio]):not([type=button]), textarea, select, [contenteditable]";
const PRESSABLE = "button, a[href], summary, input[type=checkbox], input[type=radio]";

/** The settings of the keys: {single: bool, map: {id: key}}. */
export const keySettings = () => ({ single: true, map: {}, ...browserStore.get("keys", {}) });

/** The keys of an entry as they are set: a remapped single key comes first. */
export function keysOf(entry, settings = keySettings()) {
  const own = settings.map[entry.id];
  const keys = own ? [own, ...entry.keys.filter((key) => !isSingle(key))] : entry.keys;
  return settings.single ? keys : keys.filter((key) => !isSingle(key));
}

/** Whether a key is one printable sign, alone or in a chord: those can be switched off. */
export const isSingle = (key) => /^(Shift\+)?[^ ]$/.test(key) || /^\S \S$/.test(key);

/** The name of a pressed key: "y", "Shift+u", "Ctrl+ArrowLeft", "?", "Space". */
export function pressed(event) {
  const digit = event.shiftKey && /^Digit([1-3])$/.exec(event.code || "");
  let key = digit ? digit[1] : event.key === " " ? "Space" : event.key;
  const letter = key.length === 1 && key.toLowerCase() !== key.toUpperCase();
  const printable = key.length === 1 && !letter && !digit;
  if (letter) key = key.toLowerCase();
  const ctrl = event.ctrlKey || event.metaKey ? "Ctrl+" : "";
  return ctrl + (event.shiftKey && !printable ? "Shift+" : "") + key;
}

let chord = { key: "", at: 0 };

/** The entry of the table that a key event means on a screen, or null. */
export function entryFor(event, screen) {
  if (event.isComposing || event.altKey || event.defaultPrevented) return null;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest(TAKES_TEXT)) return null;
  const key = pressed(event);
  if (["Enter", "Space"].includes(key) && target.closest(PRESSABLE)) return null;
  const now = performance.now();
  const full = chord.key && now - chord.at < CHORD_MS ? `${chord.key} ${key}` : "";
  const scopes = new Set(["all", screen]);
  if (target.closest("[role=grid]")) scopes.add("grid");
  const settings = keySettings();
  const here = KEYS.filter((entry) => entry.scopes.some((scope) => scopes.has(scope)));
  const find = (wanted) => here.find((entry) => keysOf(entry, settings).includes(wanted));
  chord = { key: "", at: 0 };
  const found = (full && find(full)) || find(key);
  if (found) return { ...found, key };
  if (settings.single && key === "g") chord = { key, at: now };
  return null;
}

/** How a key is written on a button or in the help. */
export function keyLabel(key) {
  const signs = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", PageUp: "PgUp", PageDown: "PgDn" };
  return key.replace(/Arrow\w+|Escape|PageUp|PageDown/, (found) => signs[found]);
}

/** The first key of an entry as it is set, for buttons; "" where there is none. */
export function keyOf(id) {
  const entry = KEYS.find((one) => one.id === id);
  const [key] = entry ? keysOf(entry) : [];
  return key ? keyLabel(key) : "";
}
