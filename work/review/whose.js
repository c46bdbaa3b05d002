// Whose face is this? One face, the three nearest people; a digit answers.
import { face, h } from "./dom.js";
import { locked } from "./acts.js";
import { called } from "./library.js";
import { askName } from "./names.js";
import { keyButton, personName, span } from "./parts.js";
import { Queue } from "./questions.js";
import { go } from "./route.js";
import { t } from "./texts.js";

class Whose extends Queue {
  constructor() { super("whose"); }

  acts() {
    return {
      choice: ({ key }) => this.pick(Number(key) - 1), choiceAll: ({ key }) => this.pick(Number(key.at(-1)) - 1, true),
      notFace: () => this.say("not_face", t("said.not_face"), "0"), ignore: () => this.say("stranger", t("said.stranger"), "i"),
      skip: () => this.say("skip", t("said.skip"), t("mark.skip")), typeName: () => this.type(), photo: () => this.photo(), details: () => this.details(),
    };
  }

  heading(question) {
    return t("whose.heading", { year: question.face.year || t("undated"), who: question.choices.map((one, at) => `${at + 1} ${called(one.name)}`).join(", ") });
  }

  build(question) {
    const { face: one, choices, alike = [] } = question;
    return h("div", { class: "question" },
      h("h1", {}, t("whose.title")),
      h("div", { class: "sides" },
        h("section", { class: "one" }, face(one.thumb, 300, { width: undefined, height: undefined }), h("p", { class: "facts" }, one.year || t("undated")), one.photo && keyButton("photo", () => this.photo()),
          alike.length > 1 && h("p", { class: "alike" }, t("whose.alike", { n: alike.length }), " ", alike.filter((other) => other.thumb).slice(0, 6).map((other) => face(other.thumb, 44)))),
        h("ol", { class: "choices" }, choices.map((choice, at) => h("li", {}, h("button", { type: "button", "data-choice": at + 1, onclick: (event) => this.pick(at, event.shiftKey) },
          h("kbd", {}, String(at + 1)), h("span", { class: "who" }, personName(choice.name), h("small", {}, `${t("faces", { n: choice.faces })}${span(choice.years) ? ` · ${span(choice.years)}` : ""}`)),
          h("span", { class: "face-row" }, (choice.shown || []).slice(0, 4).map((shown) => face(shown.thumb, 84)))))))),
      h("p", { class: "more", hidden: !this.detailed }, choices.map((choice, at) => `${at + 1}: ${Math.round(100 * (choice.likeness ?? 0))} %`).join(" · ")),
      h("div", { class: "answers", role: "group", tabIndex: -1, "aria-label": this.heading(question) },
        keyButton("ignore", () => this.acts().ignore(), { text: t("whose.stranger") }), keyButton("notFace", () => this.acts().notFace(), { text: t("whose.notFace") }),
        keyButton("typeName", () => this.type()), keyButton("skip", () => this.acts().skip())));
  }

  details() {
    this.detailed = !this.detailed;
    const more = this.stage.querySelector(".more");
    if (more) more.hidden = !this.detailed;
  }

  faces(all) {
    const { face: one, alike = [] } = this.painted;
    return all ? [...new Set([one.id, ...alike.map((other) => other.id ?? other)])] : [one.id];
  }

  pick(at, all = false) {
    const choice = this.painted?.choices[at];
    if (!choice) return;
    const item = { kind: "answer", qid: this.painted.qid, answer: choice.id, ...(all ? { faces: this.faces(true) } : {}) };
    return this.answer([item], t("said.person", { who: called(choice.name) }), String(at + 1));
  }

  say(answer, what, mark) {
    if (this.painted) return this.answer([{ kind: "answer", qid: this.painted.qid, answer }], what, mark);
  }

  async type() {
    const question = this.painted;
    if (!question || locked()) return;
    const found = await askName({ title: t("whose.type"), known: t("move.there") });
    this.focus();
    if (!found || this.painted !== question) return;
    const faces = this.faces(false);
    const item = found.to ? { kind: "move", faces, to: found.to } : { kind: "move", faces, to: null, name: found.name };
    return this.answer([item], t("said.person", { who: found.name }), "t");
  }

  photo() {
    const one = this.painted?.face;
    if (one?.photo) go("photo", one.photo, { face: one.id });
  }
}

export const open = () => new Whose();
