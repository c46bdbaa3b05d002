// What the decisions change in the sets: first shown, then done, with progress.
import { bdi, fill, h, say, tabStore, tell } from "./dom.js";
import { get, listen, post } from "./api.js";
import { rev, waiting } from "./acts.js";
import { loadState, state } from "./library.js";
import { empty } from "./parts.js";
import { t } from "./texts.js";

const WAIT_MS = 1500; // between looks at a preview whose event may have been missed

class Apply {
  scope = "apply";

  constructor() {
    this.head = h("div", { class: "apply-head" });
    this.status = h("div", { class: "apply-status" });
    this.table = h("div", { class: "scroll", tabIndex: -1 });
    this.element = h("section", { class: "screen apply" }, this.head, this.status, this.table);
    this.stop = [listen("sse-preview", (event) => this.came(event)), listen("sse-progress", (event) => this.progress(event)), listen("state", () => this.fromState())];
    this.draw();
    const held = tabStore.get("preview");
    if (held) this.fetch(held);
    loadState().catch(() => {});
  }

  acts() { return {}; }

  close() {
    for (const stop of this.stop) stop();
    clearTimeout(this.timer);
  }

  title() { return t("screen.apply"); }
  focus() { this.head.querySelector("button:not([disabled])")?.focus({ preventScroll: true }); }
  refresh() { this.draw(); }

  get running() { return ["apply", "preview"].includes(state.apply?.state); }

  fromState() {
    const { apply = {} } = state;
    this.progress(apply);
    this.draw();
  }

  draw() {
    const had = this.head.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    const old = this.preview && this.preview.rev < Math.max(rev.seen, state.rev || 0);
    const busy = this.asked || this.running;
    const drawn = JSON.stringify([this.preview?.id, old, busy, this.running, this.asked]);
    if (drawn === this.drawn) return null; // a button that is being pressed stays
    this.drawn = drawn;
    fill(this.head, h("h1", {}, t("screen.apply")), h("p", {}, t("apply.what")),
      h("p", { class: "buttons" },
        h("button", { type: "button", "data-act": "preview", class: this.preview && !old ? "" : "main", disabled: busy, onclick: () => this.ask() }, t("apply.preview")),
        h("button", { type: "button", "data-act": "apply", class: this.preview && !old ? "main" : "", disabled: !this.preview || old || busy, onclick: () => this.start() }, t("apply.apply")),
        this.running && h("button", { type: "button", "data-act": "cancel", onclick: () => this.cancel() }, t("apply.cancel"))),
      old && h("p", { class: "warn" }, t("apply.old")));
    if (had) (this.head.querySelector(`[data-act="${had}"]:not([disabled])`) || this.head.querySelector("button:not([disabled])") || this.table).focus({ preventScroll: true });
    if (!this.preview) return fill(this.table, this.asked ? h("p", { class: "empty" }, t("apply.reckons")) : empty(t("apply.empty")));
    return this.drawPreview();
  }

  drawPreview() {
    const { sets = [], steps = [], files } = this.preview;
    const heads = ["set", "before", "after", "joined", "left", "new", "renumbered"];
    const changed = (one) => (one.joined || 0) + (one.left || 0) + (one.renumbered ? 1 : 0) + (one.new === true ? 1 : 0);
    const rows = [...sets].sort((a, b) => changed(b) - changed(a));
    const cell = (value) => (value === true ? t("yes") : value === false || value === null || value === undefined ? "–" : String(value));
    fill(this.table, 
      h("p", { class: "facts" }, [files !== undefined && files !== null ? t("apply.files", { n: files }) : "", steps.map((step) => (typeof step === "string" ? t.maybe(`step.${step}`, step) : t.maybe(`step.${step.step || step.name}`, step.text || step.name || step.step))).join(" → ")].filter(Boolean).join(" · ")),
      rows.length ? h("table", { class: "sets" }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, t(`apply.${head}`))))),
        h("tbody", {}, rows.map((one) => h("tr", { class: changed(one) ? "changed" : "" }, h("th", { scope: "row" }, bdi(one.name || one.id), one.name && one.id && one.name !== one.id ? h("small", {}, ` ${one.id}`) : null),
          heads.slice(1).map((head) => h("td", { "data-head": t(`apply.${head}`) }, cell(one[head]))))))) : empty(t("apply.nothing")));
  }

  async ask() {
    if (waiting()) return say(t("apply.waiting"), true);
    this.asked = true;
    this.preview = null;
    this.draw();
    this.table.focus({ preventScroll: true });
    try {
      const { preview } = await post("/api/preview", {});
      state.apply = { ...state.apply, state: "preview", job: preview };
      this.await(preview);
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    this.asked = false;
    this.draw();
    say(t.maybe(`apply.${error.body?.error}`, t(error.status ? "error.refused" : "error.away")), true);
  }

  came({ preview, error, stopped }) {
    if (!error && !stopped) return this.fetch(preview);
    this.asked = false;
    tabStore.set("preview", null);
    this.draw();
    return say(error ? t("apply.failed", { why: error }) : t("apply.stopped"), true);
  }

  /** Look for a preview whose event may have been missed; asked for only once it is there. */
  await(id) {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      await loadState().catch(() => {});
      if (!this.asked) return;
      if (state.apply.state === "preview") this.await(id);
      else this.fetch(id);
    }, WAIT_MS);
  }

  async fetch(id) {
    clearTimeout(this.timer);
    try {
      const reply = await get(`/api/preview/${encodeURIComponent(id)}`);
      if (reply.error || reply.stopped) return this.came(reply);
      this.preview = { id, ...reply };
      tabStore.set("preview", id);
      if (this.asked) say(t("apply.ready"));
      this.asked = false;
      this.draw();
      if (document.activeElement === this.table || document.activeElement === document.body) this.focus();
    } catch (error) {
      if (error.status !== 404) return this.fail(error);
      this.asked = false;
      tabStore.set("preview", null);
      this.draw();
    }
  }

  async start() {
    if (!this.preview) return;
    try {
      await post("/api/apply", { preview: this.preview.id, rev: this.preview.rev });
      this.applied = this.preview.id;
      this.preview = null;
      tabStore.set("preview", null);
      this.progress({ state: "apply" });
      loadState().catch(() => {});
    } catch (error) {
      this.fail(error);
    }
  }

  async cancel() {
    try {
      await post(`/api/apply/${encodeURIComponent(state.apply.job || this.applied)}/cancel`, {});
      say(t("apply.cancelled"));
    } catch (error) {
      this.fail(error);
    }
    loadState().catch(() => {});
  }

  /** How far a job is; `now` is its state: idle, preview, apply, done, stopped or failed. */
  progress({ state: now = "idle", step = "", done = 0, total = 0, text = "", number, steps, job }) {
    const before = state.apply?.state;
    state.apply = { ...state.apply, state: now, ...(job ? { job } : {}) };
    const tenth = total ? Math.floor((10 * done) / total) : -1;
    if (this.running) {
      const words = [steps > 1 && number ? t("apply.step", { at: number, all: steps }) : "", step && t.maybe(`step.${step}`, step), text].filter(Boolean).join(" · ");
      fill(this.status, h("progress", { ...(total ? { max: total, value: done } : {}), "aria-label": t("apply.progress") }), h("span", {}, words, total ? ` ${done}/${total}` : ""));
      if (tenth !== this.tenth || step !== this.step) tell(`${words} ${total ? `${10 * tenth} %` : ""}`);
    } else if (now === "idle" || (now === "done" && !this.applied)) fill(this.status);
    else fill(this.status, h("p", { class: now === "failed" ? "warn" : "" }, now === "failed" ? t("apply.failed", { why: text }) : t(`apply.${now}`)));
    Object.assign(this, { tenth, step });
    if (before !== now) {
      this.draw();
      if (this.applied && now === "done") say(t("apply.done"));
    }
  }
}

export const open = () => new Apply();
