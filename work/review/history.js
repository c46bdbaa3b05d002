// Everything that was said, newest first, each act with its undo; conflicts and refused acts first.
import { bdi, face, fill, h, say } from "./dom.js";
import { get, listen, tab } from "./api.js";
import { dropRefused, refusedActs, sendAgain, undo } from "./acts.js";
import { chips, empty, failed } from "./parts.js";
import { amend, route } from "./route.js";
import { sentence, t } from "./texts.js";

const PAGE = 100; // acts per request
const when = (time) => {
  const at = new Date(typeof time === "number" && time < 1e12 ? time * 1000 : time);
  return Number.isNaN(at.getTime()) ? "" : new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "short", timeStyle: "short" }).format(at);
};

class History {
  scope = "history";

  constructor() {
    this.author = route().query.get("author") || "all";
    this.acted = [];
    this.tools = h("div", { class: "tools" });
    this.top = h("div", { class: "conflicts" });
    this.list = h("ol", { class: "acts", "aria-label": t("screen.history") });
    this.more = h("p", { class: "buttons" });
    this.element = h("section", { class: "screen history" }, h("h1", { class: "unseen" }, this.title()), this.tools, h("div", { class: "scroll", tabIndex: -1 }, this.top, this.list, this.more));
    this.stop = listen("refused", () => this.drawTop());
    this.load();
  }

  acts() { return {}; }
  close() { this.stop(); }
  title() { return t("screen.history"); }
  focus() { (this.list.querySelector("button") || this.element.querySelector(".scroll")).focus({ preventScroll: true }); }
  refresh() { this.load(Math.max(PAGE, this.acted.length)); }

  async load(count = PAGE, before = "") {
    const turn = this.turn = (this.turn || 0) + 1;
    try {
      const reply = await get(`/api/history?before=${before}&n=${count}`);
      if (turn !== this.turn) return; // it was asked again meanwhile
      this.acted = before === "" ? reply.acts : [...this.acted, ...reply.acts];
      this.conflicts = reply.conflicts || [];
      this.whole = reply.acts.length < count;
      this.draw();
    } catch (error) {
      fill(this.list, failed(error, () => this.load()));
    }
  }

  kindOf({ author }) {
    if (author === "operator") return "me";
    return author.startsWith("import") ? "import" : "rule";
  }

  draw() {
    const kinds = ["all", "me", "import", "rule"];
    fill(this.tools, chips(t("author"), kinds.map((kind) => [kind, t(`author.${kind}`)]), this.author, (author) => {
      this.author = author;
      amend({ author: author === "all" ? "" : author });
      this.draw();
      this.tools.querySelector(`[data-value="${author}"]`).focus();
    }));
    const pace = this.pace();
    if (pace) this.tools.append(h("span", { class: "count" }, pace));
    const focused = document.activeElement?.closest?.(".act")?.dataset.op;
    this.drawTop();
    const shown = this.acted.filter((act) => this.author === "all" || this.kindOf(act) === this.author);
    fill(this.list, ...shown.map((act) => this.row(act)));
    if (!shown.length) fill(this.list, h("li", {}, empty(t("history.empty"))));
    fill(this.more, ...(this.whole || !this.acted.length ? [] : [h("button", { type: "button", onclick: () => this.load(PAGE, this.acted.at(-1).rev) }, t("history.more"))]));
    if (focused) (this.list.querySelector(`[data-op="${CSS.escape(focused)}"] button`) || this.element.querySelector(".scroll")).focus({ preventScroll: true });
  }

  /** "214 answers, 1.7 s each": of my answers less than a minute apart. */
  pace() {
    const times = this.acted.filter((act) => act.tab === tab && !["undo", "redo"].includes(act.kind)).map((act) => Date.parse(act.time));
    const gaps = times.slice(1).map((time, at) => (times[at] - time) / 1000).filter((gap) => gap >= 0 && gap < 60);
    if (gaps.length < 5) return "";
    return t("history.pace", { n: gaps.length, s: (gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length).toFixed(1) });
  }

  row(act) {
    return h("li", { class: act.revoked ? "act revoked" : "act", "data-op": act.op },
      h("div", { class: "said" }, h("span", { class: "sentence" }, sentence(act.sentence, act.kind)), h("small", {}, [when(act.time), act.author === "operator" ? "" : act.author, act.revoked ? t("history.revoked") : ""].filter(Boolean).join(" · "))),
      h("span", { class: "face-row" }, (act.faces || []).map((one) => face(one.thumb, 40))),
      !["undo", "redo", "revoke"].includes(act.kind) && !act.revoked && h("button", { type: "button", class: "undo", "aria-label": `${t("act.undo")}: ${sentence(act.sentence, act.kind)}`, onclick: () => this.takeBack(act) }, t("act.undo")));
  }

  async takeBack(act) {
    const taken = await undo(act.op);
    if (!taken) return;
    const said = t("undone", { what: sentence(act.sentence, act.kind) });
    if (await taken.reply) say(said);
    await this.load(Math.max(PAGE, this.acted.length));
    const li = this.list.querySelector(`[data-op="${CSS.escape(act.op)}"]`);
    ((li?.querySelector("button")) || li?.nextElementSibling?.querySelector("button") || this.element.querySelector(".scroll")).focus({ preventScroll: true });
  }

  drawTop() {
    const refused = refusedActs();
    fill(this.top, 
      ...refused.map((one) => h("article", { class: "conflict" },
        h("h2", {}, one.status === 409 ? t("conflict.title") : t("refused.title", { status: one.status })),
        h("p", {}, t("conflict.mine"), " ", bdi(one.entry.what || t("act.act")), ` · ${when(one.entry.at)}`),
        one.body.theirs && h("p", {}, t("conflict.theirs"), " ", [one.body.theirs].flat().map((their) => `${sentence(their.sentence || their, their.kind)} · ${when(their.time)}`).join("; ")),
        h("p", { class: "buttons" }, one.status === 409 && h("button", { type: "button", class: "main", onclick: () => { sendAgain(one.entry.body.op); this.focus(); } }, t("conflict.again")),
          h("button", { type: "button", onclick: () => { dropRefused(one.entry.body.op); this.focus(); } }, t("conflict.drop"))))),
      ...(this.conflicts || []).map((one) => h("article", { class: "conflict" },
        h("h2", {}, t("conflict.both")), h("p", {}, sentence(one, "conflict")), h("span", { class: "face-row" }, (one.faces || []).map((shown) => face(shown.thumb, 64))),
        h("p", { class: "buttons" }, h("button", { type: "button", onclick: () => this.takeBack({ op: one.op, sentence: one, kind: "conflict" }) }, t("conflict.giveUp")),
          [one.by].flat().filter(Boolean).map((op) => h("button", { type: "button", onclick: () => this.takeBack({ op, sentence: this.acted.find((act) => act.op === op)?.sentence || one }) }, t("conflict.giveUpLater")))))));
  }
}

export const open = () => new History();
