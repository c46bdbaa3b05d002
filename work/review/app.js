// The frame: bar, addresses, keys, banner; each screen is a module of its own.
import { fill, h, say, voices } from "./dom.js";
import { events, hearAgain, listen, net, session, tab } from "./api.js";
import { lastActs, redo, redone, refusedActs, resume, undo, waiting } from "./acts.js";
import { help, settings } from "./dialogs.js";
import { entryFor, keyOf } from "./keys.js";
import { loadState, people, state } from "./library.js";
import { go, route } from "./route.js";
import { language, sentence, setLanguage, t } from "./texts.js";
import * as apply from "./apply.js";
import * as historyScreen from "./history.js";
import * as pairs from "./pairs.js";
import * as peopleScreen from "./people.js";
import * as personScreen from "./person.js";
import * as photoScreen from "./photo.js";
import * as whose from "./whose.js";

const OPEN = {
  people: peopleScreen.open, person: personScreen.open, halves: pairs.openHalves, same: pairs.openSame, look: pairs.openLook,
  whose: whose.open, photo: photoScreen.open, history: historyScreen.open, apply: apply.open,
};
const TABS = [["people", "people"], ["same", "same"], ["whose", "whose"], ["look", "look"], ["history", null], ["apply", null]];
const POLL_MS = 2000; // between tries while the server is away

let screen = null;
let restoring = null; // what an undone act takes up on the screen that opens next
const bar = h("nav", { class: "bar", id: "bar" });
const banner = h("div", { class: "banner", role: "alert", hidden: true });
const main = h("main", { id: "main", tabIndex: -1 });
const toast = h("div", { id: "toast", "aria-hidden": "true", hidden: true });

// ---- bar ----------------------------------------------------------------------------------------

function countOf(kind) {
  if (kind === "people") return state.counts?.people;
  return kind ? state.queues?.[kind] : undefined;
}

function saved() {
  if (!net.up) return t("saved.away");
  return waiting() ? t("saved.waiting", { n: waiting() }) : `${t("saved.yes")} ✓`;
}

function drawBar() {
  const here = { person: "people", halves: "people", photo: "people" }[route().name] || route().name;
  const had = bar.contains(document.activeElement) ? document.activeElement.dataset.go : null;
  const number = new Intl.NumberFormat(language());
  const conflicts = (state.conflicts?.length ?? state.conflicts ?? 0) + refusedActs().length;
  const drawn = JSON.stringify([here, language(), state.counts?.people, state.queues, conflicts, saved(), waiting(), keyOf("undo")]);
  if (drawn === bar.dataset.drawn) return; // a link that is being pressed stays
  bar.dataset.drawn = drawn;
  bar.setAttribute("aria-label", t("bar"));
  fill(bar, 
    h("ul", {}, TABS.map(([name, kind]) => {
      const count = countOf(kind);
      return h("li", {}, h("a", { href: `#/${name}`, "data-go": name, "aria-current": here === name ? "page" : undefined }, t(`tab.${name}`),
        count ? h("span", { class: "n" }, ` ${number.format(count)}`) : null, name === "history" && conflicts ? h("span", { class: "n warn" }, ` ! ${conflicts}`) : null));
    })),
    h("span", { class: "saved", "data-waiting": waiting() }, saved()),
    tool("undo", "↶", undoNow), tool("redo", "↷", redoNow), tool("help", "?", () => help(screen?.scope)), tool("settings", "⚙", () => settings(again)));
  bar.querySelector("[aria-current]")?.scrollIntoView({ inline: "nearest", block: "nearest" });
  if (had) bar.querySelector(`[data-go="${had}"]`)?.focus({ preventScroll: true });
}

function tool(id, sign, act) {
  return h("button", { type: "button", class: "tool", "data-go": id, "aria-label": t(`act.${id}`), title: `${t(`act.${id}`)} (${keyOf(id)})`, onclick: act }, h("span", { "aria-hidden": "true" }, sign));
}

function drawBanner() {
  banner.hidden = net.up && net.known;
  if (banner.hidden) return fill(banner);
  const text = net.known ? t("banner.away", { n: waiting() }) : t("banner.unknown");
  if (banner.dataset.text === text && banner.childNodes.length) return;
  banner.dataset.text = text;
  fill(banner, h("span", {}, text), " ", net.known && h("button", { type: "button", onclick: () => poll() }, t("again")));
}

/** Settings changed; in another language everything is drawn anew. */
function again(language = false) {
  if (language) open();
  drawBar();
}

// ---- screens ------------------------------------------------------------------------------------

function open(restore = null) {
  const { name, arg } = route();
  screen?.close();
  screen = (OPEN[name] || OPEN.people)(arg);
  fill(main, screen.element);
  document.title = `${screen.title()} · ${t("app")}`;
  drawBar();
  screen.focus();
  if (document.activeElement === document.body) main.focus({ preventScroll: true });
  if (restore) screen.restore?.(restore);
}

function moved() {
  open(restoring);
  restoring = null;
}

// ---- undo and redo ------------------------------------------------------------------------------

async function undoNow() {
  const memo = lastActs().at(-1);
  if (memo?.question && screen?.scope === memo.kind && await screen.undo()) return;
  const taken = await undo();
  if (!taken) return;
  const reply = await taken.reply;
  if (!reply) return;
  const what = taken.memo?.what || sentence(reply.act?.sentence, reply.act?.kind) || "";
  say(t("undone", { what }));
  if (!taken.memo) return;
  if (taken.memo.route && taken.memo.route !== location.hash) {
    restoring = taken.memo;
    location.hash = taken.memo.route;
  } else screen.restore?.(taken.memo);
}

async function redoNow() {
  const taken = await redo();
  const reply = taken && await taken.reply;
  if (!reply) return;
  if (reply.undone) redone(reply.undone, location.hash);
  const act = reply.act;
  say(t("redone", { what: act ? sentence(act.sentence, act.kind) : "" }));
}

// ---- keys ---------------------------------------------------------------------------------------

const common = {
  undo: undoNow, redo: redoNow, help: () => help(screen?.scope), settings: () => settings(again), search: () => go("people"),
  goPeople: () => go("people"), goSame: () => go("same"), goWhose: () => go("whose"), goLook: () => go("look"), goHistory: () => go("history"), goApply: () => go("apply"),
};

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  const entry = entryFor(event, screen?.scope);
  if (!entry) return;
  const act = screen?.acts()[entry.id] || common[entry.id];
  if (!act) return;
  event.preventDefault();
  if (event.repeat && !entry.repeat) return;
  act(entry);
}

// ---- start --------------------------------------------------------------------------------------

async function poll() {
  try {
    await loadState();
    hearAgain();
  } catch {
    if (net.known) setTimeout(poll, POLL_MS);
  }
}

let drawing = null;

/** The server's word on what changed: the screen reads it anew, at most four times a second. */
function changed(event) {
  if (event.own && waiting() && !event.refused) return; // what comes now would lack what is still on its way
  clearTimeout(drawing);
  drawing = setTimeout(() => screen?.refresh(event), event.refused ? 0 : 120);
}

function subscribe() {
  listen("changed", changed);
  listen("sse-rev", (event) => {
    if (event.tab === tab) return;
    people.stale = true;
    changed(event);
    loadState().catch(() => {});
  });
  listen("sse-hello", ({ rev }) => {
    if (rev === people.rev) return;
    people.stale = true;
    changed({});
    loadState().catch(() => {});
  });
  listen("sse-bye", () => poll());
  listen("state", drawBar);
  listen("outbox", () => { drawBar(); drawBanner(); });
  listen("refused", drawBar);
  listen("net", () => { drawBar(); drawBanner(); if (!net.up) setTimeout(poll, POLL_MS); else { say(t("banner.back")); people.stale = true; screen?.refresh({}); } });
  listen("people", () => { if (screen?.scope === "people") screen.list(); });
  addEventListener("hashchange", moved);
  addEventListener("keydown", onKey);
  document.addEventListener("review-undo", undoNow);
}

async function start() {
  setLanguage(language());
  document.body.append(h("a", { class: "skip", href: "#main", onclick: (event) => { event.preventDefault(); screen?.focus(); } }, t("skip.link")), bar, banner, main, toast, ...voices());
  subscribe();
  try {
    await session();
  } catch (error) {
    if (error.status) net.known = false;
  }
  if (!location.hash.startsWith("#/")) history.replaceState(null, "", "/#/people");
  drawBanner();
  open();
  loadState().catch(() => {});
  resume();
  events();
}

start();
