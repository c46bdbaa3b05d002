// Same person? and Worth a look: two sides, eight faces each, one key per answer; and the two halves
// in which a person would be cut.
import { bdi, face, fill, h, say, tell } from "./dom.js";
import { get } from "./api.js";
import { decide, locked } from "./acts.js";
import { called } from "./library.js";
import { askName } from "./names.js";
import { failed, keyButton, personName, span } from "./parts.js";
import { Queue } from "./questions.js";
import { go } from "./route.js";
import { sentence, t } from "./texts.js";

const SHOWN = 8; // faces of a side

/** One side of a question: who, how many, and up to eight faces; those of `nearest` are framed. */
export function sideOf(side, place, nearest = []) {
  const near = new Set(nearest);
  const shown = side.shown || [];
  return h("section", { class: `side ${place}`, "data-person": side.id, "aria-label": t(`side.${place}`, { who: called(side.name), faces: t("faces", { n: side.faces }) }) },
    h("h2", {}, h("a", { href: `#/person/${encodeURIComponent(side.id)}`, tabIndex: -1 }, personName(side.name)), h("small", {}, ` ${t("faces", { n: side.faces })}${span(side.years) ? ` · ${span(side.years)}` : ""}`)),
    h("div", { class: `eight n${Math.min(SHOWN, shown.length)}` }, shown.slice(0, SHOWN).map((one) => h("figure", { class: near.has(one.id) ? "nearest" : "" },
      face(one.thumb, 180, { width: undefined, height: undefined }), h("figcaption", {}, one.year || " ")))));
}

class Pairs extends Queue {
  constructor(kind) {
    super(kind);
    this.at = null;
  }

  acts() {
    return {
      same: () => this.decideNow("same"), different: () => this.decideNow("different"), skip: () => this.decideNow("skip"),
      side: ({ key }) => this.turnTo(key === "ArrowLeft" ? "left" : "right"), open: () => this.openSide(), photo: () => this.photo(),
      name: () => this.rename(), ignore: () => this.ignore(), details: () => this.details(),
    };
  }

  heading(question) {
    const who = (side) => t("side", { who: called(side.name), faces: t("faces", { n: side.faces }) });
    if (this.kind === "look") return t("look.heading", { who: who(question.person) });
    return t("same.heading", { a: who(question.left), b: who(question.right) });
  }

  build(question) {
    const { left, right, nearest = [], evidence = [] } = question;
    const look = this.kind === "look";
    const facts = evidence.map((one) => sentence(one)).filter(Boolean);
    const heir = !look && h("p", { class: "becomes" }, t("same.becomes"), " ", bdi(called((left.name || !right.name) && (left.name || left.faces >= right.faces) ? left.name : right.name)));
    return h("div", { class: "question" },
      h("h1", {}, look ? [t("look.title"), " ", personName(question.person.name)] : t("same.title")),
      h("div", { class: "sides" }, sideOf(left, "left", nearest), sideOf(right, "right", nearest)),
      h("p", { class: "evidence" }, facts.join(" · ")), heir,
      h("p", { class: "more", hidden: true }, this.more(question)),
      h("div", { class: "answers", role: "group", tabIndex: -1, "aria-label": this.heading(question) },
        keyButton("same", () => this.decideNow("same"), { main: true, text: t(look ? "look.same" : "act.same") }),
        keyButton("different", () => this.decideNow("different"), { text: t(look ? "look.different" : "act.different") }), keyButton("skip", () => this.decideNow("skip"))));
  }

  more({ likelihood: likely }) {
    if (!likely) return "";
    return [t(`likely.${likely.word}`, { n: likely.percent }), likely.of && t("same.more", { n: likely.yes, of: likely.of })].filter(Boolean).join(" · ");
  }

  shown() {
    this.at = null;
    if (this.detailed) this.stage.querySelector(".more").hidden = false;
  }

  details() {
    this.detailed = !this.detailed;
    const more = this.stage.querySelector(".more");
    if (more) more.hidden = !this.detailed;
    if (this.detailed && more) tell(more.textContent);
  }

  decideNow(answer) {
    const question = this.painted;
    if (!question) return;
    const mark = { same: t("mark.same"), different: t("mark.different"), skip: t("mark.skip") }[answer];
    return this.answer([{ kind: "answer", qid: question.qid, answer }], t(`said.${answer}`), mark);
  }

  /** Of the two sides the one that keys are for. */
  turnTo(place) {
    this.at = place;
    for (const side of this.stage.querySelectorAll(".side")) side.classList.toggle("here", side.classList.contains(place));
    if (this.painted) tell(t("side", { who: called(this.painted[place].name), faces: t("faces", { n: this.painted[place].faces }) }));
  }

  openSide() {
    if (!this.painted) return;
    const side = this.kind === "look" && !this.at ? this.painted.person : this.painted[this.at || "left"];
    go("person", side.id);
  }

  /** The photo of the face of the side that is nearest to the other side. */
  photo() {
    const right = this.at === "right";
    const id = this.painted?.nearest?.[right ? 1 : 0] || this.painted?.[right ? "right" : "left"].shown[0]?.id;
    if (id) go("photo", id.split(":")[0], { face: id });
  }

  ignore() {
    if (!this.painted || locked()) return;
    const side = this.kind === "look" ? this.painted.person : this.painted[this.at || "right"];
    return this.answer([{ kind: "ignore", people: [side.id] }], t("did.ignore", { n: 1 }), "i");
  }

  async rename() {
    const question = this.painted;
    if (!question || locked()) return;
    const side = this.kind === "look" ? question.person : question[this.at || (question.left.name && !question.right.name ? "right" : "left")];
    const found = await askName({ title: t("name.title"), value: side.name, without: [side.id] });
    this.focus();
    if (!found) return;
    const items = found.to ? [{ kind: "merge", people: [found.to, side.id] }] : [{ kind: "name", people: [side.id], text: found.name }];
    const taken = await decide(items, { what: t("did.name", { who: found.name }) });
    if (!taken) return;
    say(t("did.name", { who: found.name }));
    side.name = found.name;
    this.built.delete(question.qid);
    this.paint();
  }
}

class Halves {
  scope = "halves";

  constructor(pid) {
    this.pid = pid;
    this.element = h("section", { class: "screen queue halves" }, h("div", { class: "stage" }));
    this.load();
  }

  acts() { return { same: () => this.leave(), leave: () => this.leave(), different: () => this.cut() }; }
  close() {}
  refresh() {}
  title() { return t("act.halves"); }
  focus() { this.element.querySelector(".answers")?.focus({ preventScroll: true }); }
  leave() { go("person", this.pid); }

  async load() {
    const stage = this.element.firstChild;
    try {
      this.parts = await get(`/api/people/${encodeURIComponent(this.pid)}/halves`);
      fill(stage, h("div", { class: "question" }, h("h1", {}, t("halves.title")),
        h("div", { class: "sides" }, sideOf(this.parts.left, "left"), sideOf(this.parts.right, "right")),
        h("div", { class: "answers", role: "group", tabIndex: -1, "aria-label": t("halves.title") },
          keyButton("different", () => this.cut(), { main: true, text: t("halves.cut") }), keyButton("same", () => this.leave(), { text: t("halves.leave") }))));
    } catch (error) {
      fill(stage, h("div", { class: "answers", tabIndex: -1 }, error.status === 409 || error.status === 404
        ? [h("p", {}, t("halves.none")), keyButton("leave", () => this.leave(), { text: t("back") })] : failed(error, () => this.load())));
    }
    this.focus();
  }

  async cut() {
    if (!this.parts || locked()) return;
    const what = t("did.halves", { a: this.parts.left.faces, b: this.parts.right.faces });
    const taken = await decide([{ kind: "halves", person: this.pid }], { what });
    if (!taken) return;
    say(what);
    await taken.reply;
    this.leave();
  }
}

export const openSame = () => new Pairs("same");
export const openLook = () => new Pairs("look");
export const openHalves = (pid) => new Halves(pid);
