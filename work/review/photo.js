// A whole photo with all its boxes; a face the detector missed is drawn here.
import { fill, h, say } from "./dom.js";
import { get, listen } from "./api.js";
import { decide, locked, sendBox } from "./acts.js";
import { called } from "./library.js";
import { askName, askText } from "./names.js";
import { failed, keyButton, personName } from "./parts.js";
import { go, route } from "./route.js";
import { t } from "./texts.js";

const STEP = 0.01; // of the picture, a press of an arrow
const SMALLEST = 0.01; // of the picture, an edge of a box
const DATE_STYLES = { year: { year: "numeric" }, month: { year: "numeric", month: "long" } }; // as far as it is known
const kept = new Map(); // photo id -> promise of its facts
const MOST_KEPT = 60;

/** What is known of a photo; kept for a while. */
export function photoOf(id) {
  if (!kept.has(id)) {
    const promise = get(`/api/photos/${id}`);
    promise.catch(() => kept.delete(id));
    kept.set(id, promise);
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return kept.get(id);
}

listen("changed", () => kept.clear());
listen("sse-rev", () => kept.clear());

/** Where a box lies on the picture, as CSS. */
function placed([x1, y1, x2, y2], { width, height }) {
  return { left: `${(100 * x1) / width}%`, top: `${(100 * y1) / height}%`, width: `${(100 * (x2 - x1)) / width}%`, height: `${(100 * (y2 - y1)) / height}%` };
}

/** A photo with its boxes to look at; the face `id` is framed. */
export function picture(photo, id) {
  const img = h("img", { src: `/p/${photo.id}.jpg`, alt: "", decoding: "async" });
  img.addEventListener("error", () => img.classList.add("gone"));
  return h("span", { class: "picture", style: { "aspect-ratio": `${photo.width} / ${photo.height}` } }, img,
    photo.boxes.filter((one) => !one.not_face || one.id === id).map((one) => h("i", { class: one.id === id ? "box here" : "box", style: placed(one.box, photo) })));
}

class Photo {
  scope = "photo";

  constructor(id) {
    this.id = id;
    this.face = route().query.get("face");
    this.frame = h("div", { class: "picture big", role: "group", "aria-label": t("screen.photo") });
    this.side = h("aside", { class: "panel", "aria-label": t("panel") });
    this.hint = h("p", { class: "hint", role: "status" });
    this.element = h("section", { class: "screen photo" }, h("div", { class: "beside" }, h("div", { class: "stage" }, this.frame), this.side));
    this.stop = [listen("sse-box", (event) => this.boxed(event))];
    this.#pointer();
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(this.element);
    this.load(true);
  }

  acts() {
    return {
      add: () => this.add(), edit: () => this.edit(), leave: () => this.leave(), boxKeep: () => this.enter(),
      boxMove: ({ key }) => this.arrow(key), boxSize: ({ key }) => this.resize(key),
      notThis: () => this.onFace("not_belongs"), notFace: () => this.onFace("not_face"), best: () => this.onFace("best"),
      moveTo: () => this.name(), name: () => this.name(), date: () => this.date(), former: () => this.turn(-1), next: () => this.turn(1),
    };
  }

  close() {
    this.watch.disconnect();
    for (const stop of this.stop) stop();
  }

  title() { return this.photo?.name || t("screen.photo"); }

  focus() {
    const to = this.frame.querySelector(`[data-face="${CSS.escape(this.face || "-")}"]`) || this.frame.querySelector(".box") || this.side.querySelector("button");
    to?.focus({ preventScroll: true });
  }

  async load(first = false) {
    try {
      this.photo = await photoOf(this.id);
      this.draw();
      if (first || !document.activeElement || document.activeElement === document.body) this.focus();
    } catch (error) {
      fill(this.frame, failed(error, () => this.load(first)));
    }
  }

  refresh() {
    if (!this.draft) this.load();
  }

  /** As large as fits, in the shape of the photo. */
  fit() {
    if (!this.photo) return;
    const room = this.frame.parentElement.getBoundingClientRect();
    const phone = innerWidth < 700;
    const high = phone ? innerHeight * 0.6 : room.height;
    const scale = Math.min(room.width / this.photo.width, Math.max(120, high) / this.photo.height);
    Object.assign(this.frame.style, { width: `${Math.floor(this.photo.width * scale)}px`, height: `${Math.floor(this.photo.height * scale)}px` });
  }

  draw() {
    const { photo } = this, had = !!document.activeElement?.dataset?.face;
    const img = h("img", { src: `/p/${photo.id}.jpg`, alt: t("photo.alt", { name: photo.name }), draggable: false });
    img.addEventListener("error", () => img.classList.add("gone"));
    const boxes = [...photo.boxes].sort((a, b) => a.box[0] - b.box[0]);
    fill(this.frame, img, ...boxes.map((one, at) => h("button", {
      type: "button", class: `box${one.id === this.face ? " here" : ""}${one.not_face ? " off" : ""}`, "data-face": one.id, style: placed(one.box, photo),
      "aria-label": this.boxName(one, at), onfocus: () => this.on(one.id), onclick: () => this.on(one.id), ondblclick: () => this.enter(),
    }, h("span", { class: "tag" }, String(at + 1)))));
    this.fit();
    this.drawSide(boxes);
    if (this.draft) this.drawDraft();
    if (had) this.focus();
  }

  boxName(one, at) {
    return t("photo.box", { at: at + 1, all: this.photo.boxes.length, who: one.not_face ? t("flag.not_face") : called(one.person?.name), more: one.drawn ? t("photo.drawn") : "" });
  }

  drawSide(boxes) {
    const { photo } = this;
    const when = photo.taken ? new Date(typeof photo.taken === "number" ? photo.taken * 1000 : photo.taken) : null;
    const date = when && !Number.isNaN(when.getTime()) ? new Intl.DateTimeFormat(document.documentElement.lang, { ...(DATE_STYLES[photo.taken_to] ?? { dateStyle: "medium" }), timeZone: "UTC" }).format(when) : t("undated");
    fill(this.side, 
      h("h1", { class: "file" }, photo.name), h("p", { class: "facts" }, `${date} · ${photo.width} × ${photo.height}`), photo.path && h("p", { class: "path" }, photo.path),
      h("p", { class: "buttons" }, keyButton("add", () => this.add()), keyButton("date", () => this.date()), keyButton("leave", () => history.back(), { text: t("back") })),
      this.hint,
      this.current() && h("p", { class: "buttons on-face" }, keyButton("name", () => this.name()), keyButton("notThis", () => this.onFace("not_belongs")),
        keyButton("notFace", () => this.onFace("not_face"), { text: this.current().not_face ? t("act.notFace.off") : undefined }), keyButton("best", () => this.onFace("best")),
        keyButton("edit", () => this.edit()), this.current().person?.id && keyButton("open", () => this.enter())),
      h("ol", { class: `box-list${boxes.length > 8 ? " many" : ""}` }, boxes.map((one) => h("li", { class: one.id === this.face ? "here" : "" },
        h("button", { type: "button", class: "plain", onclick: () => { this.on(one.id); this.focus(); } }, one.not_face ? h("s", {}, t("flag.not_face")) : personName(one.person?.name)),
        one.drawn && h("small", {}, ` ${t("photo.drawn")}`)))));
  }

  current() { return this.photo?.boxes.find((one) => one.id === this.face); }

  /** The face the keys are for. */
  on(id) {
    if (this.face === id) return;
    this.face = id;
    history.replaceState(history.state, "", `#/photo/${this.id}?face=${encodeURIComponent(id)}`);
    for (const box of this.frame.querySelectorAll(".box")) box.classList.toggle("here", box.dataset.face === id);
    this.drawSide([...this.photo.boxes].sort((a, b) => a.box[0] - b.box[0]));
  }

  turn(step) {
    const boxes = [...this.photo.boxes].sort((a, b) => a.box[0] - b.box[0]);
    if (!boxes.length) return;
    const at = boxes.findIndex((one) => one.id === this.face);
    this.on(boxes[(at + step + boxes.length) % boxes.length].id);
    this.focus();
  }

  leave() {
    if (!this.draft) return history.back();
    this.draft = null;
    this.frame.classList.remove("drawing");
    this.frame.querySelector(".draft")?.remove();
    this.hint.textContent = "";
    this.focus();
  }

  enter() {
    if (this.draft) return this.keepDraft();
    const person = this.current()?.person;
    if (person?.id) go("person", person.id);
  }

  // ---- acts on a face ----------------------------------------------------------------------------

  async act(items, what) {
    const taken = await decide(items, { what });
    if (!taken) return;
    say(what);
    await taken.reply;
    kept.delete(this.id);
    await this.load();
  }

  onFace(kind) {
    const one = this.current();
    if (!one || locked()) return;
    if (kind === "best") return this.act([{ kind, face: one.id }], t("did.best"));
    if (kind === "not_face") return this.act([{ kind, faces: [one.id], ...(one.not_face ? { off: true } : {}) }], t(one.not_face ? "did.not_face.off" : "did.not_face", { n: 1 }));
    if (one.person?.id) return this.act([{ kind, faces: [one.id], person: one.person.id }], t(`did.${kind}`, { n: 1 }));
  }

  async name() {
    const one = this.current();
    if (!one || locked()) return;
    const found = await askName({ title: t("photo.who"), known: t("move.there") });
    if (!found) return this.focus();
    const item = found.to ? { kind: "move", faces: [one.id], to: found.to } : { kind: "move", faces: [one.id], to: null, name: found.name };
    return this.act([item], t("did.move", { n: 1, who: found.name }));
  }

  async date() {
    if (locked()) return;
    const text = await askText({ title: t("date.title"), hint: t("date.hint"), pattern: "\\d{4}(-\\d\\d(-\\d\\d)?)?" });
    if (!text) return this.focus();
    return this.act([{ kind: "date", photos: [this.id], text }], t("did.date", { date: text }));
  }

  // ---- drawing a box -----------------------------------------------------------------------------

  /** The draft is in parts of the picture: {x, y, w, h}. */
  add(box = null, replaces = "") {
    if (locked() || !this.photo) return;
    const side = 0.2, ratio = this.photo.width / this.photo.height;
    const high = Math.min(0.5, side * Math.max(1, ratio));
    this.draft = box || { x: 0.4, y: 0.5 - high / 2, w: high / ratio, h: high };
    this.replaces = replaces;
    this.corner = null;
    this.untouched = !replaces; // a new box is drawn anew by the first drag, wherever it begins
    this.frame.classList.add("drawing");
    this.hint.textContent = t("photo.hint");
    say(t("photo.hint"));
    this.drawDraft(true);
  }

  edit() {
    const one = this.current();
    if (!one) return;
    const { width, height } = this.photo, [x1, y1, x2, y2] = one.box;
    this.add({ x: x1 / width, y: y1 / height, w: (x2 - x1) / width, h: (y2 - y1) / height }, one.id);
  }

  drawDraft(focus = false) {
    this.frame.querySelector(".draft")?.remove();
    if (!this.draft) return;
    const corners = ["nw", "ne", "sw", "se"].map((corner) => h("i", { class: `handle ${corner}`, "data-corner": corner }));
    const el = h("div", { class: "draft", tabIndex: 0, role: "group", "aria-label": t("photo.draft") }, corners,
      h("span", { class: "draft-buttons" }, keyButton("boxKeep", () => this.keepDraft(), { main: true }), keyButton("leave", () => this.leave(), { text: t("leave") })));
    this.frame.append(el);
    this.moveDraft();
    if (focus) el.focus({ preventScroll: true });
  }

  moveDraft() {
    const { x, y, w, h: high } = this.draft, el = this.frame.querySelector(".draft");
    if (!el) return;
    Object.assign(el.style, { left: `${100 * x}%`, top: `${100 * y}%`, width: `${100 * w}%`, height: `${100 * high}%` });
    el.classList.toggle("low", y + high > 0.85);
  }

  arrow(key) {
    if (!this.draft) return this.turn({ ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[key]);
    this.draft.x += { ArrowLeft: -STEP, ArrowRight: STEP }[key] || 0;
    this.draft.y += { ArrowUp: -STEP, ArrowDown: STEP }[key] || 0;
    this.bound();
  }

  resize(key) {
    if (!this.draft) return;
    this.draft.w += { "Shift+ArrowLeft": -STEP, "Shift+ArrowRight": STEP }[key] || 0;
    this.draft.h += { "Shift+ArrowUp": -STEP, "Shift+ArrowDown": STEP }[key] || 0;
    this.bound();
  }

  bound() {
    const d = this.draft;
    this.untouched = false;
    d.w = Math.min(1, Math.max(SMALLEST, d.w));
    d.h = Math.min(1, Math.max(SMALLEST, d.h));
    d.x = Math.min(1 - d.w, Math.max(0, d.x));
    d.y = Math.min(1 - d.h, Math.max(0, d.y));
    this.moveDraft();
  }

  async keepDraft() {
    const { x, y, w, h: high } = this.draft, { width, height } = this.photo;
    const box = [x * width, y * height, (x + w) * width, (y + high) * height].map(Math.round);
    const replaces = this.replaces;
    this.leave();
    this.hint.textContent = t("photo.sent");
    const reply = await sendBox({ photo: this.id, box, ...(replaces ? { replaces } : {}) });
    this.job = reply?.job;
    if (!reply) this.hint.textContent = "";
  }

  /** The server has made a face of a box, or says why not. */
  async boxed({ job, face: id, error }) {
    if (job !== this.job) return;
    this.hint.textContent = "";
    kept.delete(this.id);
    if (error) return say(t("photo.failed", { why: t.maybe(`box.${error}`, error) }), true);
    say(t("photo.joined"));
    this.face = id;
    await this.load(true);
  }

  #pointer() {
    const at = (event) => {
      const box = this.frame.getBoundingClientRect();
      const part = (value) => Math.min(1, Math.max(0, value));
      return { x: part((event.clientX - box.left) / box.width), y: part((event.clientY - box.top) / box.height) };
    };
    let drag = null;
    const spanned = (a, b) => ({ x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), w: Math.abs(a.x - b.x), h: Math.abs(a.y - b.y) });
    this.frame.addEventListener("pointerdown", (event) => {
      if (!this.draft || event.button !== 0 || event.target.closest("button:not(.box)")) return;
      event.preventDefault();
      const corner = event.target.dataset.corner, inside = !this.untouched && event.target.closest(".draft");
      const { x, y, w, h: high } = this.draft;
      const far = { nw: { x: x + w, y: y + high }, ne: { x, y: y + high }, sw: { x: x + w, y }, se: { x, y } }[corner];
      drag = { from: at(event), far, inside: inside && !corner && { x, y }, moved: false };
      this.frame.setPointerCapture(event.pointerId);
    });
    this.frame.addEventListener("pointermove", (event) => {
      if (!drag || !this.draft) return;
      const now = at(event), dx = now.x - drag.from.x, dy = now.y - drag.from.y;
      if (Math.hypot(dx, dy) < 0.008 && !drag.moved) return;
      drag.moved = true;
      if (drag.far) this.draft = spanned(drag.far, now);
      else if (drag.inside) Object.assign(this.draft, { x: drag.inside.x + dx, y: drag.inside.y + dy });
      else this.draft = spanned(drag.from, now);
      this.bound();
    });
    this.frame.addEventListener("pointerup", () => {
      if (drag && !drag.moved && this.draft && !drag.far) this.#tapped(drag.from);
      drag = null;
      this.frame.querySelector(".draft")?.focus({ preventScroll: true });
    });
    this.frame.addEventListener("pointercancel", () => { drag = null; });
  }

  /** Two taps are two corners. */
  #tapped(point) {
    if (this.corner) {
      const a = this.corner;
      this.draft = { x: Math.min(a.x, point.x), y: Math.min(a.y, point.y), w: Math.abs(a.x - point.x), h: Math.abs(a.y - point.y) };
      this.corner = null;
      this.hint.textContent = t("photo.hint");
    } else {
      this.corner = point;
      this.draft = { x: point.x, y: point.y, w: SMALLEST, h: SMALLEST };
      this.hint.textContent = t("photo.second");
    }
    this.bound();
  }
}

export const open = (id) => new Photo(id);
