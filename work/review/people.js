// Everyone: a grid by size, name, newest or most doubtful; several are joined or named at once.
import { bdi, face, fill, h, say } from "./dom.js";
import { decide, locked } from "./acts.js";
import { Grid } from "./grid.js";
import { HIDDEN, IGNORED, NAMED, SINGLE, areFresh, called, foresee, freshPeople, heirOf, people, personOf, plain } from "./library.js";
import { askName } from "./names.js";
import { choice, chosenBar, empty, failed, keyButton, personName, setName } from "./parts.js";
import { amend, go, place, route } from "./route.js";
import { Selection } from "./selection.js";
import { t } from "./texts.js";

const SORTS = ["size", "name", "newest", "doubtful"];
const SHOWS = ["people", "named", "unnamed", "singles", "hidden", "ignored", "all"];

/** Rows of the table that a filter leaves: `flags` decide, then the words searched for. */
export function rowsShown({ show, words }) {
  const { id, name, flags } = people.columns;
  const wanted = plain(words);
  const fits = {
    people: (f) => !(f & (IGNORED | HIDDEN | SINGLE)) || (f & NAMED && !(f & (IGNORED | HIDDEN))),
    named: (f) => f & NAMED && !(f & IGNORED),
    unnamed: (f) => !(f & (NAMED | IGNORED | HIDDEN | SINGLE)),
    singles: (f) => f & SINGLE && !(f & (IGNORED | HIDDEN)),
    hidden: (f) => f & HIDDEN,
    ignored: (f) => f & IGNORED,
    all: () => true,
  }[show];
  const rows = [];
  for (let row = 0; row < id.length; row++) {
    if (fits(flags[row]) && (!wanted || plain(name[row]).includes(wanted))) rows.push(row);
  }
  return rows;
}

/** Rows in the order asked for; equals keep the order of size. */
export function sorted(rows, sort) {
  const c = people.columns;
  const bySize = (a, b) => c.faces[b] - c.faces[a] || a - b;
  const order = {
    size: bySize,
    name: (a, b) => !!c.name[b] - !!c.name[a] || c.name[a].localeCompare(c.name[b]) || bySize(a, b),
    newest: (a, b) => (c.newest[b] || 0) - (c.newest[a] || 0) || bySize(a, b),
    doubtful: (a, b) => c.doubtful[b] - c.doubtful[a] || bySize(a, b),
  }[sort];
  return rows.sort(order);
}

function tile(id, px) {
  const one = personOf(id);
  if (!one) return h("span", {});
  const facts = [t("faces", { n: one.faces })];
  if (one.doubtful) facts.push(px < 130 ? `◇ ${one.doubtful}` : t("doubtful.n", { n: one.doubtful }));
  if (one.set && px >= 130) facts.push(setName(one.set));
  const marks = [one.flags & IGNORED && t("flag.ignored"), one.flags & HIDDEN && t("flag.hidden")].filter(Boolean);
  return [
    h("span", { class: "pic", style: { "background-color": one.colour || "" } }, face(one.cover, px), h("span", { class: "tick" }), marks.length > 0 && h("span", { class: "mark" }, marks.join(" · "))),
    h("span", { class: "foot" }, personName(one.name), h("small", {}, facts.join(" · "))),
  ];
}

function tileName(id, at, all) {
  const one = personOf(id);
  if (!one) return "";
  return t("people.tile", { at: at + 1, all, who: called(one.name), faces: t("faces", { n: one.faces }), doubt: one.doubtful ? t("doubtful.n", { n: one.doubtful }) : "" });
}

class People {
  scope = "people";

  constructor() {
    const { query } = route();
    this.view = { sort: query.get("sort") || "size", show: query.get("show") || "people", words: query.get("q") || "" };
    this.selection = new Selection("people", () => this.chosen());
    this.grid = new Grid({
      label: t("screen.people"), size: 144, foot: 46, selection: this.selection, tile, stamp: (id) => JSON.stringify(personOf(id)),
      name: (id, at) => tileName(id, at, this.grid.ids.length),
      open: (id) => this.leave(id),
    });
    this.bar = chosenBar();
    this.search = h("input", { type: "search", id: "search", placeholder: t("search"), "aria-label": t("search"), value: this.view.words, autocomplete: "off", oninput: () => this.filter({ words: this.search.value }) });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); this.grid.focusCell(0, true); }
      if (event.key === "Escape") { this.search.value = ""; this.filter({ words: "" }); this.grid.focusCell(); }
    });
    this.tools = h("div", { class: "tools" });
    this.none = h("div", { hidden: true });
    this.element = h("section", { class: "screen people" }, h("h1", { class: "unseen" }, this.title()), this.tools, this.none, this.grid.element, this.bar);
    this.grid.element.addEventListener("scroll", () => place.keep(this.grid.element.scrollTop, this.grid.focusedId), { passive: true });
    this.drawTools();
    this.load();
  }

  acts() {
    return {
      ...this.grid.acts(),
      name: () => this.rename(), merge: () => this.merge(), ignore: () => this.flag("ignore"), hide: () => this.flag("hide"),
      search: () => this.search.select(),
    };
  }

  close() {
    place.keep(this.grid.element.scrollTop, this.grid.focusedId);
    this.grid.close();
  }

  title() { return t("screen.people"); }
  focus() { this.grid.focusCell(); }

  leave(id) { go("person", id); }

  drawTools() {
    const at = document.activeElement?.id;
    fill(this.tools, 
      this.search,
      choice(t("sort"), SORTS.map((one) => [one, t(`sort.${one}`)]), this.view.sort, (sort) => this.filter({ sort })),
      choice(t("show"), SHOWS.map((one) => [one, t(`show.${one}`)]), this.view.show, (show) => this.filter({ show })),
      h("span", { class: "count", "aria-live": "off" }));
    if (at === "search") this.search.focus();
  }

  filter(change) {
    Object.assign(this.view, change);
    amend({ sort: this.view.sort === "size" ? "" : this.view.sort, show: this.view.show === "people" ? "" : this.view.show, q: this.view.words });
    this.list();
    this.grid.element.scrollTop = 0;
  }

  showAll() {
    this.search.value = "";
    this.view = { ...this.view, show: "all", words: "" };
    this.drawTools();
    this.filter({});
    this.grid.focusCell();
  }

  async load() {
    try {
      await freshPeople();
      this.list();
      const { top, id } = place.get();
      if (!this.placed) {
        this.grid.focus = this.grid.index.get(id) ?? 0;
        this.grid.paint(true);
        this.grid.element.scrollTop = top;
        this.placed = true;
      }
    } catch (error) {
      fill(this.none, failed(error, () => this.load()));
      this.none.hidden = false;
    }
  }

  /** The server or another screen changed the table. */
  refresh() {
    if (areFresh()) this.list();
    else this.load();
  }

  list() {
    const ids = sorted(rowsShown(this.view), this.view.sort).map((row) => people.columns.id[row]);
    const total = people.columns.id.length;
    this.none.hidden = ids.length > 0;
    this.grid.element.hidden = !ids.length;
    this.grid.show([{ label: "", ids }]);
    this.tools.querySelector(".count").textContent = t("people.count", { n: ids.length });
    if (!ids.length) fill(this.none, total
      ? empty(t("people.filtered", { n: total }), h("button", { type: "button", onclick: () => this.showAll() }, t("show.everything")))
      : empty(t("people.empty")));
    const alive = this.selection.list().filter((id) => people.at.has(id));
    if (alive.length !== this.selection.size) this.selection.set(alive);
    else this.chosen();
  }

  chosen() {
    this.grid.marks();
    const ids = this.selection.list().filter((id) => people.at.has(id));
    const had = this.bar.contains(document.activeElement);
    this.bar.hidden = !ids.length;
    if (!ids.length) {
      if (had) this.grid.focusCell();
      return;
    }
    const count = ids.reduce((sum, id) => sum + personOf(id).faces, 0);
    const unseen = ids.filter((id) => !this.grid.index?.has(id)).length;
    const heir = ids.length > 1 ? heirOf(ids) : null;
    const focused = had && document.activeElement.dataset.act;
    fill(this.bar, 
      h("span", { class: "what" }, t("people.chosen", { n: ids.length, faces: t("faces", { n: count }) }), unseen > 0 && ` · ${t("chosen.unseen", { n: unseen })}`),
      ids.length > 1 && keyButton("merge", () => this.merge(), { main: true }),
      heir && h("span", { class: "becomes" }, "→ ", bdi(called(heir.name))),
      keyButton("name", () => this.rename()), keyButton("ignore", () => this.flag("ignore"), { text: this.allAre(IGNORED) ? t("act.ignore.off") : undefined }),
      keyButton("hide", () => this.flag("hide"), { text: this.allAre(HIDDEN) ? t("act.hide.off") : undefined }),
      ids.length === 1 && keyButton("open", () => this.leave(ids[0])),
      keyButton("none", () => this.selection.clear()));
    if (focused) (this.bar.querySelector(`[data-act="${focused}"]`) || this.bar.querySelector("button")).focus();
  }

  /** Those an act is for: the chosen ones, else the one with the focus. */
  targets() {
    const ids = this.selection.list().filter((id) => people.at.has(id));
    if (ids.length) return ids;
    return this.grid.focusedId && people.at.has(this.grid.focusedId) ? [this.grid.focusedId] : [];
  }

  allAre(flag) {
    const ids = this.targets();
    return ids.length > 0 && ids.every((id) => personOf(id).flags & flag);
  }

  async act(items, what, then) {
    const chosen = this.selection.list(), at = this.grid.focus;
    const taken = await decide(items, { what, chosen });
    if (!taken) return;
    say(what);
    then();
    this.selection.clear();
    this.grid.focusCell(at);
  }

  merge() {
    const ids = this.targets();
    if (locked()) return;
    if (ids.length < 2) return say(t("merge.two"), true);
    const heir = heirOf(ids);
    return this.act([{ kind: "merge", people: ids }], t("did.merge", { n: ids.length, who: called(heir.name) }), () => foresee("merge", ids));
  }

  flag(kind) {
    const ids = this.targets();
    if (!ids.length || locked()) return;
    const off = this.allAre(kind === "ignore" ? IGNORED : HIDDEN);
    const what = t(`did.${kind}${off ? ".off" : ""}`, { n: ids.length });
    return this.act([{ kind, people: ids, ...(off ? { off } : {}) }], what, () => foresee(kind, ids, { off }));
  }

  async rename() {
    const ids = this.targets();
    if (!ids.length || locked()) return;
    const value = ids.length === 1 ? personOf(ids[0]).name : heirOf(ids)?.name || "";
    const title = ids.length > 1 ? t("name.many", { n: ids.length }) : t("name.title");
    const found = await askName({ title, value, without: ids, empty: ids.length === 1 });
    if (!found || (found.name === value && ids.length === 1)) return this.grid.focusCell();
    if (found.to) return this.act([{ kind: "merge", people: [found.to, ...ids] }], t("did.merge", { n: ids.length + 1, who: found.name }), () => foresee("merge", [found.to, ...ids]));
    const items = ids.length > 1 ? [{ kind: "merge", people: ids, name: found.name }] : [{ kind: "name", people: ids, text: found.name }];
    return this.act(items, found.name ? t("did.name", { who: found.name }) : t("did.name.off"), () => {
      if (ids.length > 1) foresee("merge", ids);
      foresee("name", ids, { text: found.name });
    });
  }

  /** An act was undone: what it took from the choice is chosen again. */
  restore({ chosen }) {
    if (chosen?.length) this.selection.set(chosen);
  }
}

export const open = () => new People();
