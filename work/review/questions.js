// A queue of questions read ahead, of which one is painted; shared by Same?, Worth a look and Whose?.
import { fill, h, say, tabStore, tell } from "./dom.js";
import { decoded, get, listen } from "./api.js";
import { decide, lastActs, locked, undo as undoAct } from "./acts.js";
import { empty, failed, keyButton } from "./parts.js";
import { t } from "./texts.js";

const AHEAD = 12; // questions held
const REFILL = 8; // with fewer left more are asked for
const GUARD_MS = 120; // after painting, in which no answer is taken: it was meant for the former
const MARKS = 6; // last answers shown

export class Queue {
  /** A subclass gives `build(question)`, the element of a question. */
  constructor(kind) {
    this.kind = this.scope = kind;
    this.window = [];
    this.answered = new Set();
    this.built = new Map(); // qid -> element
    this.painted = null;
    this.paintedAt = 0;
    this.facts = { left: 0 };
    this.marks = tabStore.get(`marks.${kind}`, []);
    this.progress = h("div", { class: "progress" });
    this.stage = h("div", { class: "stage" });
    this.element = h("section", { class: `screen queue ${kind}` }, this.progress, this.stage);
    this.stop = [listen("changed", (event) => this.heard(event))];
    this.start();
  }

  close() { for (const stop of this.stop) stop(); }
  title() { return t(`screen.${this.kind}`); }
  focus() { this.stage.querySelector(".answers")?.focus({ preventScroll: true }); }
  refresh() { if (!this.painted) this.refill(); }

  async start() {
    const held = tabStore.get(`question.${this.kind}`);
    this.first = held; // a reload shows the question that was painted
    await this.refill();
  }

  /** Ask for more questions; the painted one never changes. */
  async refill() {
    if (this.filling) return this.filling;
    const held = [...this.window.map(({ qid }) => qid), ...this.answered].slice(-200);
    this.filling = get(`/api/questions?kind=${this.kind}&n=${AHEAD}&after=${held.join(",")}`).then((reply) => {
      this.facts = { ...reply, left: reply.left };
      const known = new Set([...held, ...this.answered]);
      const fresh = reply.questions.filter(({ qid }) => !known.has(qid));
      this.window.push(...fresh);
      if (this.first) {
        const at = this.window.findIndex(({ qid }) => qid === this.first);
        if (at > 0) this.window.unshift(...this.window.splice(at, 1));
        this.first = null;
      }
      for (const question of this.window.slice(0, AHEAD)) this.prepare(question);
      this.filling = null;
      if (!this.painted) this.paint();
      else this.drawProgress();
    }, (error) => {
      this.filling = null;
      if (!this.painted) fill(this.stage, failed(error, () => this.refill()));
    });
    return this.filling;
  }

  /** Build a question ahead of its time, with its pictures decoded. */
  prepare(question) {
    if (this.built.has(question.qid)) return;
    const el = this.build(question);
    for (const img of el.querySelectorAll("img")) decoded(img);
    this.built.set(question.qid, el);
  }

  paint() {
    const [question] = this.window;
    this.painted = question || null;
    if (!question) this.drawDone();
    else {
      this.prepare(question);
      const el = this.built.get(question.qid);
      el.dataset.qid = question.qid;
      fill(this.stage, el);
      this.paintedAt = performance.now();
      tabStore.set(`question.${this.kind}`, question.qid);
      this.shown?.(question);
    }
    this.drawProgress();
    this.focus();
  }

  drawProgress() {
    const { left, wrong, minutes } = this.facts;
    const facts = [t("queue.left", { n: left ?? 0 })];
    if (wrong && typeof wrong === "object") facts.push(t("queue.wrong", { n: Math.round(wrong.expected ?? 0) }));
    else if (typeof wrong === "number") facts.push(t("queue.wrong", { n: Math.round(wrong) }));
    if (minutes) facts.push(t("queue.minutes", { n: Math.max(1, Math.round(minutes)) }));
    const gone = this.answered.size, all = gone + (left ?? 0);
    fill(this.progress, 
      h("span", { class: "facts" }, facts.join(" · ")),
      h("progress", { max: Math.max(1, all), value: gone, "aria-label": t("queue.progress") }),
      h("span", { class: "last" }, this.marks.length > 0 && t("queue.last"), " ", this.marks.map((mark) => h("b", {}, mark))),
      keyButton("undo", () => document.dispatchEvent(new CustomEvent("review-undo"))));
  }

  drawDone() {
    const wrong = this.facts.wrong;
    const text = this.facts.done && wrong?.expected !== undefined
      ? t("queue.done", { n: Math.round(wrong.expected), low: Math.round(wrong.low), high: Math.round(wrong.high) }) : t("queue.empty");
    fill(this.stage, h("div", { class: "answers", tabIndex: -1 }, empty(text, h("a", { class: "button main", href: "#/apply" }, t("screen.apply")), h("a", { class: "button", href: "#/people" }, t("screen.people")))));
  }

  /** Take an answer to the painted question: items of the act, what is said, a sign for the row of last answers. */
  async answer(items, what, mark) {
    const question = this.painted;
    if (!question || this.answering || performance.now() - this.paintedAt < GUARD_MS || locked()) return;
    this.answering = true;
    try {
      const taken = await decide(items, { what, question, kind: this.kind, mark });
      if (!taken) return;
      this.answered.add(question.qid);
      this.marks = [...this.marks, mark].slice(-MARKS);
      tabStore.set(`marks.${this.kind}`, this.marks);
      this.window.shift();
      this.built.delete(question.qid);
      this.facts.left = Math.max(0, (this.facts.left ?? 1) - 1);
      this.paint();
      tell(`${what}. ${this.painted ? this.heading(this.painted) : ""}`);
      if (this.window.length < REFILL) this.refill();
    } finally {
      this.answering = false;
    }
  }

  /** Undo of this queue's last answer: its question is painted again at once. */
  async undo() {
    const memo = lastActs().at(-1);
    if (!memo?.question || memo.kind !== this.kind) return false;
    const taken = await undoAct();
    if (!taken) return true;
    this.ask(memo);
    return true;
  }

  /** Paint the question of an act that was undone. */
  ask({ question, what }) {
    this.answered.delete(question.qid);
    this.window = [question, ...this.window.filter(({ qid }) => qid !== question.qid)];
    this.marks = this.marks.slice(0, -1);
    tabStore.set(`marks.${this.kind}`, this.marks);
    this.facts.left = (this.facts.left ?? 0) + 1;
    this.paint();
    say(t("undone", { what: what || "" }));
  }

  restore(memo) { if (memo.question) this.ask(memo); }

  /** What others' answers imply is not asked; the painted question stays. */
  heard({ dropped = [], refused, own, rev: at }) {
    if (refused) this.refill();
    const gone = new Set(dropped);
    if (gone.size) {
      this.window = this.window.filter(({ qid }, place) => place === 0 && this.painted || !gone.has(qid));
      for (const qid of gone) if (qid !== this.painted?.qid) this.built.delete(qid);
      if (this.window.length < REFILL) this.refill();
    }
    if (!own && at) {
      this.window = this.window.slice(0, 1);
      this.refill();
    }
  }
}

