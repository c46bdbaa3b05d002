// One person: faces in rank order or by eras, the doubtful ones marked, and why each is in or out.
import { face, fill, h, later, say } from "./dom.js";
import { get } from "./api.js";
import { decide, locked, rev } from "./acts.js";
import { Grid } from "./grid.js";
import { HIDDEN, IGNORED, called, freshPeople, people, personOf } from "./library.js";
import { askName, askText } from "./names.js";
import { chips, chosenBar, empty, failed, keyButton, personName, setName, span } from "./parts.js";
import { photoOf, picture } from "./photo.js";
import { amend, go, place, route } from "./route.js";
import { Selection } from "./selection.js";
import { t } from "./texts.js";

const PAGE = 2000; // faces per request
const SIGNS = { far: "◇", same_photo: "⧉", covered: "◐", weak: "▽", duplicate: "=", before_birth: "⌛" };

/** All that is known of a person's faces, filled page by page. */
class Faces {
  constructor() {
    this.columns = { id: [] };
    this.at = new Map();
  }

  take(reply) {
    this.head = reply;
    for (const [name, column] of Object.entries(reply.columns)) (this.columns[name] ??= []).push(...column);
    for (let row = this.at.size; row < this.columns.id.length; row++) this.at.set(this.columns.id[row], row);
  }

  of(id) {
    const row = this.at.get(id);
    if (row === undefined) return null;
    return Object.fromEntries([["row", row], ...Object.entries(this.columns).map(([name, column]) => [name, column[row]])]);
  }
}

class Person {
  scope = "person";

  constructor(pid) {
    this.pid = pid;
    const { query } = route();
    this.view = { show: query.get("show") || "all", by: query.get("by") || "rank" };
    this.faces = new Faces();
    this.selection = new Selection(`person.${pid}`, () => this.chosen());
    this.grid = new Grid({
      label: t("screen.person"), size: 112, foot: 24, selection: this.selection,
      tile: (id, px) => this.tile(id, px), stamp: (id) => `${this.faces.head?.total} ${JSON.stringify(this.faces.of(id))}`, name: (id) => this.tileName(id),
      open: (id) => this.showPhoto(id), moved: () => this.lookSoon(),
    });
    this.lookSoon = later(120, () => this.look());
    this.head = h("header", { class: "person-head" });
    this.tools = h("div", { class: "tools" });
    this.panel = h("aside", { class: "panel", "aria-label": t("panel") });
    this.bar = chosenBar();
    this.none = h("div", { hidden: true });
    this.element = h("section", { class: "screen person" }, this.head, this.tools, this.none, h("div", { class: "beside" }, this.grid.element, this.panel), this.bar);
    this.load();
  }

  acts() {
    return {
      ...this.grid.acts(), chooseAll: () => this.chooseAll(),
      photo: () => this.showPhoto(this.grid.focusedId), name: () => this.rename(),
      notThis: () => this.apart("not_belongs"), moveTo: () => this.moveTo(), split: () => this.apart("split"), halves: () => go("halves", this.pid),
      notFace: () => this.apart("not_face"), best: () => this.best(), keep: () => this.vouch("keep"), drop: () => this.vouch("drop"),
      ignore: () => this.flag("ignore"), hide: () => this.flag("hide"), born: () => this.born(),
      former: () => this.neighbour(-1), next: () => this.neighbour(1), search: () => go("people"),
    };
  }

  close() {
    place.keep(this.grid.element.scrollTop, this.grid.focusedId);
    this.grid.close();
    this.closed = true;
  }

  title() { return this.faces.head ? called(this.faces.head.name) : t("screen.person"); }
  focus() { this.grid.focusCell(); }

  async load() {
    const fresh = new Faces(), turn = this.turn = (this.turn || 0) + 1;
    try {
      const from = (at) => get(`/api/people/${encodeURIComponent(this.pid)}/faces?from=${at}&n=${PAGE}`);
      fresh.take(await from(0));
      if (turn !== this.turn) return; // it was asked again meanwhile
      rev.seen = Math.max(rev.seen, fresh.head.rev);
      this.faces = fresh;
      this.whole = this.loadRest(fresh, from);
      this.draw();
      if (!this.settled) this.settle();
      else this.look();
    } catch (error) {
      this.grid.show([]);
      fill(this.none, failed(error, () => this.load()));
      this.none.hidden = false;
    }
    freshPeople().catch(() => {});
  }

  async loadRest(fresh, from) {
    while (fresh.columns.id.length < fresh.head.total && !this.closed && fresh === this.faces) {
      const before = fresh.columns.id.length;
      fresh.take(await from(before));
      if (fresh.columns.id.length === before) break;
      if (fresh === this.faces) this.list();
    }
  }

  /** Once, when the first answer is there. */
  settle() {
    this.settled = true;
    const { top, id } = place.get();
    this.grid.focus = this.grid.index?.get(id) ?? 0;
    this.grid.paint(true);
    this.grid.element.scrollTop = top;
    this.grid.focusCell();
    this.look();
    document.title = `${this.title()} · ${t("app")}`;
  }

  refresh({ gone = {} } = {}) {
    if (gone[this.pid]) {
      this.pid = gone[this.pid];
      history.replaceState(null, "", location.hash.replace(/person\/[^?]*/, `person/${encodeURIComponent(this.pid)}`));
    }
    this.load();
  }

  // ---- what is shown -----------------------------------------------------------------------------

  draw() {
    const { head } = this.faces;
    const exported = this.faces.columns.state.filter((state) => state === "exported").length;
    const flags = personOf(this.pid)?.flags || 0;
    const facts = [t("faces", { n: head.total }), exported && t("exported.n", { n: exported }), head.set?.id && setName(head.set.id), head.born && t("born.in", { year: head.born })].filter(Boolean);
    fill(this.head, 
      h("a", { href: "#/people", class: "back", "aria-label": t("screen.people") }, "‹"),
      h("h1", {}, h("button", { type: "button", class: "plain", onclick: () => this.rename(), title: t("act.name") }, personName(head.name))),
      h("span", { class: "facts" }, facts.join(" · "), flags & IGNORED ? ` · ${t("flag.ignored")}` : "", flags & HIDDEN ? ` · ${t("flag.hidden")}` : ""),
      h("span", { class: "buttons" }, keyButton("name", () => this.rename()), head.total > 1 && keyButton("halves", () => go("halves", this.pid)),
        keyButton("born", () => this.born()), keyButton("ignore", () => this.flag("ignore"), { text: flags & IGNORED ? t("act.ignore.off") : undefined }), keyButton("hide", () => this.flag("hide"), { text: flags & HIDDEN ? t("act.hide.off") : undefined })));
    this.list();
  }

  counts() {
    const all = { all: this.faces.columns.id.length, doubtful: 0, left_out: 0, exported: 0 };
    this.faces.columns.id.forEach((_, row) => {
      const doubts = this.faces.columns.doubts[row] || [];
      if (doubts.length) all.doubtful++;
      for (const doubt of doubts) all[doubt] = (all[doubt] || 0) + 1;
      const state = this.faces.columns.state[row];
      if (state) all[state] = (all[state] || 0) + 1;
    });
    return all;
  }

  list() {
    const counts = this.counts();
    const kinds = ["all", "doubtful", ...Object.keys(SIGNS), "exported", "left_out"].filter((kind) => counts[kind] || kind === "all" || kind === this.view.show);
    const had = this.tools.contains(document.activeElement) ? document.activeElement.dataset.value : null;
    fill(this.tools, 
      chips(t("show"), kinds.map((kind) => [kind, `${SIGNS[kind] ? `${SIGNS[kind]} ` : ""}${t(`faces.${kind}`)} ${counts[kind] || 0}`]), this.view.show, (show) => this.filter({ show })),
      this.faces.head.eras?.length > 1 && chips(t("order"), [["rank", t("by.rank")], ["eras", t("by.eras")]], this.view.by, (by) => this.filter({ by })));
    if (had) this.tools.querySelector(`[data-value="${had}"]`)?.focus();
    this.grid.show(this.groups());
    const total = this.faces.columns.id.length;
    this.none.hidden = this.grid.ids.length > 0;
    if (!this.grid.ids.length) fill(this.none, total
      ? empty(t("person.filtered", { n: total }), h("button", { type: "button", onclick: () => this.filter({ show: "all" }) }, t("show.everything")))
      : empty(t("person.empty"), h("a", { href: "#/people", class: "button" }, t("screen.people"))));
    this.chosen();
  }

  groups() {
    const c = this.faces.columns, show = this.view.show;
    const fits = (row) => show === "all" || c.state[row] === show || (c.doubts[row] || []).includes(show) || (show === "doubtful" && c.doubts[row]?.length > 0);
    const rows = c.id.map((_, row) => row).filter(fits);
    if (this.view.by !== "eras") return [{ label: "", ids: rows.map((row) => c.id[row]) }];
    const inside = ({ from, to }) => (row) => from !== null && c.year[row] >= from && c.year[row] <= to;
    const groups = (this.faces.head.eras || []).filter((era) => era.from !== null).map((era) => ({ label: span([era.from, era.to]), rows: rows.filter(inside(era)) }));
    const placed = new Set(groups.flatMap((group) => group.rows));
    groups.push({ label: t("undated"), rows: rows.filter((row) => !placed.has(row)) });
    return groups.filter((group) => group.rows.length).map((group) => ({ label: `${group.label} · ${group.rows.length}`, ids: group.rows.map((row) => c.id[row]) }));
  }

  filter(change) {
    Object.assign(this.view, change);
    amend({ show: this.view.show === "all" ? "" : this.view.show, by: this.view.by === "rank" ? "" : this.view.by });
    this.list();
  }

  tile(id, px) {
    const one = this.faces.of(id);
    if (!one) return h("span", {});
    const doubts = one.doubts || [];
    return [
      h("span", { class: "pic" }, face(one.thumb, px), h("span", { class: "tick" }),
        one.best ? h("span", { class: "star" }, "★") : null,
        doubts.length > 0 && h("span", { class: "mark" }, SIGNS[doubts[0]] || "!", " ", t(`doubt.${doubts[0]}`), doubts.length > 1 && ` +${doubts.length - 1}`)),
      h("span", { class: "foot" }, h("small", {}, one.year || "", one.keep > 0 ? ` ${t("flag.keep")}` : one.keep < 0 ? ` ${t("flag.drop")}` : one.said ? " ✓" : "", one.state === "left_out" ? ` ${t("left_out")}` : "")),
    ];
  }

  tileName(id) {
    const one = this.faces.of(id);
    if (!one) return "";
    const facts = [one.year || t("undated"), ...(one.doubts || []).map((doubt) => `${t("doubtful")}: ${t(`doubt.${doubt}`)}`), one.state ? t(one.state) : "", one.keep > 0 ? t("flag.keep") : one.keep < 0 ? t("flag.drop") : "", one.best ? t("is.best") : ""];
    return t("person.tile", { at: one.row + 1, all: this.faces.head.total, who: called(this.faces.head.name), facts: facts.filter(Boolean).join(", ") });
  }

  // ---- the face with the focus -------------------------------------------------------------------

  async look() {
    const id = this.grid.focusedId, one = id && this.faces.of(id);
    if (!one || !this.panel.offsetParent) return fill(this.panel);
    const { head } = this.faces;
    const view = h("button", { type: "button", class: "plain photo-small", onclick: () => this.showPhoto(id), "aria-label": t("act.photo") });
    const why = [one.why && `${t(one.state === "exported" ? "why.in" : "why.out")}: ${t.maybe(`why.${one.why}`, one.why)}`, ...(one.doubts || []).map((doubt) => `${SIGNS[doubt] || "!"} ${t(`doubt.${doubt}.long`)}`)].filter(Boolean);
    fill(this.panel, view, h("p", { class: "facts" }, [one.year || t("undated"), t("rank.n", { n: one.rank ?? one.row + 1 })].join(" · ")),
      why.length > 0 && h("ul", { class: "why" }, why.map((text) => h("li", {}, text))), this.spread(one), this.near());
    try {
      const photo = await photoOf(one.photo);
      if (this.grid.focusedId === id) view.append(picture(photo, id));
    } catch {
      view.append(h("span", { class: "gone-text" }, t("photo.gone")));
    }
    return head;
  }

  /** How like the person's centre this face is, among all of the person's. */
  spread(one) {
    const bins = new Array(25).fill(0);
    for (const value of this.faces.columns.likeness) bins[Math.max(0, Math.min(24, Math.floor((value ?? 0) * 25)))]++;
    const most = Math.max(1, ...bins), mine = Math.max(0, Math.min(24, Math.floor((one.likeness ?? 0) * 25)));
    const text = t("likeness", { n: Math.round(100 * (one.likeness ?? 0)) });
    return h("div", { class: "spread" }, h("div", { class: "bars", role: "img", "aria-label": text },
      bins.map((count, at) => h("i", { class: at === mine ? "mine" : "", style: { height: `${Math.max(count ? 8 : 2, (100 * count) / most)}%` } }))), h("small", {}, text));
  }

  near() {
    const near = this.faces.head.near || [];
    if (!near.length) return null;
    return h("div", { class: "near" }, h("h2", {}, t("near")), h("ul", {}, near.map((one) => h("li", {},
      h("a", { href: `#/person/${encodeURIComponent(one.id)}` }, face(one.cover, 40), personName(one.name), h("small", {}, `${t("faces", { n: one.faces })} · ${Math.round(100 * one.likeness)} %`))))));
  }

  showPhoto(id) {
    const one = id && this.faces.of(id);
    if (one) go("photo", one.photo, { face: id });
  }

  neighbour(step) {
    const ids = this.faces.head?.near ? people.columns.id : [];
    const big = ids.filter((id) => !(personOf(id).flags & 14)).sort((a, b) => personOf(b).faces - personOf(a).faces);
    const to = big[big.indexOf(this.pid) + step];
    if (to) go("person", to);
  }

  // ---- what is done ------------------------------------------------------------------------------

  async chooseAll() {
    await this.whole;
    this.selection.set(this.grid.ids);
  }

  chosen() {
    this.grid.marks();
    const ids = this.selection.list().filter((id) => this.faces.at.has(id));
    const had = this.bar.contains(document.activeElement);
    this.bar.hidden = !ids.length;
    if (!ids.length) {
      if (had) this.grid.focusCell();
      return;
    }
    const unseen = ids.filter((id) => !this.grid.index?.has(id)).length;
    const focused = had && document.activeElement.dataset.act;
    fill(this.bar, 
      h("span", { class: "what" }, t("person.chosen", { n: ids.length }), unseen > 0 && ` · ${t("chosen.unseen", { n: unseen })}`),
      keyButton("notThis", () => this.apart("not_belongs"), { main: true }), keyButton("moveTo", () => this.moveTo()), keyButton("split", () => this.apart("split")),
      keyButton("notFace", () => this.apart("not_face")), ids.length === 1 && keyButton("best", () => this.best()), keyButton("keep", () => this.vouch("keep")), keyButton("drop", () => this.vouch("drop")),
      keyButton("none", () => this.selection.clear()));
    if (focused) (this.bar.querySelector(`[data-act="${focused}"]`) || this.bar.querySelector("button")).focus();
  }

  targets() {
    const ids = this.selection.list().filter((id) => this.faces.at.has(id));
    return ids.length ? ids : [this.grid.focusedId].filter((id) => this.faces.at.has(id));
  }

  /** Take an act on faces; `leaving` are gone from here at once. */
  async act(items, what, leaving = []) {
    const chosen = this.selection.list(), at = this.grid.focus;
    const taken = await decide(items, { what, chosen });
    if (!taken) return;
    say(what);
    if (leaving.length) {
      const gone = new Set(leaving), keep = this.faces.columns.id.map((id) => !gone.has(id));
      for (const name of Object.keys(this.faces.columns)) this.faces.columns[name] = this.faces.columns[name].filter((_, row) => keep[row]);
      this.faces.at = new Map(this.faces.columns.id.map((id, row) => [id, row]));
      this.faces.head.total -= leaving.length;
      this.selection.drop(leaving);
      this.draw();
    } else this.selection.clear();
    this.grid.focusCell(at);
    this.lookSoon();
  }

  apart(kind) {
    const faces = this.targets();
    if (!faces.length || locked()) return;
    const item = { kind, faces, ...(kind === "not_belongs" ? { person: this.pid } : {}) };
    return this.act([item], t(`did.${kind}`, { n: faces.length }), faces);
  }

  async moveTo() {
    const faces = this.targets();
    if (!faces.length || locked()) return;
    const found = await askName({ title: t("move.title", { n: faces.length }), known: t("move.there"), without: [this.pid] });
    if (!found) return this.grid.focusCell();
    const item = found.to ? { kind: "move", faces, to: found.to } : { kind: "move", faces, to: null, name: found.name };
    return this.act([item], t("did.move", { n: faces.length, who: found.name }), faces);
  }

  best() {
    const [id] = this.targets();
    if (!id || locked()) return;
    const off = this.faces.of(id).best, c = this.faces.columns;
    c.best = c.id.map((other) => other === id && !off);
    this.grid.paint(true);
    return this.act([{ kind: "best", face: id, ...(off ? { off } : {}) }], t(off ? "did.best.off" : "did.best"));
  }

  vouch(kind) {
    const faces = this.targets();
    if (!faces.length || locked()) return;
    const value = kind === "keep" ? 1 : -1, c = this.faces.columns;
    const off = faces.every((id) => this.faces.of(id).keep === value);
    for (const id of faces) c.keep[this.faces.at.get(id)] = off ? 0 : value;
    this.grid.paint(true);
    return this.act([{ kind, faces, ...(off ? { off } : {}) }], t(`did.${kind}${off ? ".off" : ""}`, { n: faces.length }));
  }

  flag(kind) {
    if (locked()) return;
    const off = !!((personOf(this.pid)?.flags || 0) & (kind === "ignore" ? IGNORED : HIDDEN));
    return this.act([{ kind, people: [this.pid], ...(off ? { off } : {}) }], t(`did.${kind}${off ? ".off" : ""}`, { n: 1 }));
  }

  async rename() {
    if (locked()) return;
    const { name } = this.faces.head;
    const found = await askName({ title: t("name.title"), value: name, without: [this.pid], empty: true });
    if (!found || found.name === name && !found.to) return this.grid.focusCell();
    if (found.to) return this.act([{ kind: "merge", people: [found.to, this.pid] }], t("did.merge", { n: 2, who: found.name }));
    this.faces.head.name = found.name;
    this.draw();
    return this.act([{ kind: "name", people: [this.pid], text: found.name }], found.name ? t("did.name", { who: found.name }) : t("did.name.off"));
  }

  async born() {
    if (locked()) return;
    const text = await askText({ title: t("born.title"), value: String(this.faces.head.born || ""), type: "numeric", pattern: "(1[89]|20)\\d\\d|", hint: t("born.hint") });
    if (text === null) return this.grid.focusCell();
    return this.act([{ kind: "born", people: [this.pid], text }], t("did.born", { year: text || "–" }));
  }

  restore({ chosen }) {
    if (chosen?.length) this.selection.set(chosen);
  }
}

export const open = (pid) => new Person(pid);
