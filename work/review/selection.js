// Which tiles are chosen: ids in the model, never elements.
import { tabStore } from "./dom.js";

export class Selection {
  /** `name` under which it is kept over a reload; `changed` is called after each change. */
  constructor(name, changed = () => {}) {
    this.name = name;
    this.changed = changed;
    this.ids = new Set(tabStore.get(`chosen.${name}`, []));
    this.anchor = null;
  }

  get size() { return this.ids.size; }
  has(id) { return this.ids.has(id); }
  list() { return [...this.ids]; }

  /** Choose exactly these. */
  set(ids, anchor = this.anchor) {
    this.ids = new Set(ids);
    this.anchor = anchor;
    if (this.ids.size < 20000) tabStore.set(`chosen.${this.name}`, [...this.ids]);
    this.changed();
  }

  toggle(id) {
    const ids = new Set(this.ids);
    if (!ids.delete(id)) ids.add(id);
    this.set(ids, id);
  }

  /** From the anchor to `id` in the order of `all`; what was chosen elsewhere goes. */
  range(all, id) {
    const to = all.indexOf(id);
    const from = Math.max(0, this.anchor === null ? to : all.indexOf(this.anchor));
    this.set(all.slice(Math.min(from, to), Math.max(from, to) + 1), all[from]);
  }

  drop(ids) {
    const left = new Set(this.ids);
    for (const id of ids) left.delete(id);
    this.set(left);
  }

  clear() { this.set([], null); }
}
