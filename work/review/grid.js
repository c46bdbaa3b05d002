// A grid of square tiles of which only those near the window are elements, 400 at most.
import { h } from "./dom.js";

const MOST_TILES = 400; // elements at a time
const BAND_PX = 5; // a drag shorter than this is a click
const HOLD_MS = 500; // a finger that rests this long chooses
const SLIP_PX = 10; // a finger that moves this far does not rest
const GAP = 8; // px between tiles
const EDGE_PX = 40; // near the edge a band scrolls

export class Grid {
  /**
   * `tile(id)` makes what a cell shows, `name(id, place)` what it is called, `stamp(id)` changes with
   * either; `size` and `foot` are px of the picture and of the text below; `open(id)` and
   * `moved(id)` are told of both.
   */
  constructor({ label, size, foot, tile, name, stamp, selection, open, moved = () => {} }) {
    Object.assign(this, { size, foot, tile, name, stamp, selection, openTile: open, moved });
    this.ids = [];
    this.rows = [];
    this.columns = 1;
    this.focus = 0;
    this.live = new Map(); // row number -> element
    this.body = h("div", { class: "grid", role: "grid", "aria-label": label, "aria-multiselectable": "true" });
    this.band = h("div", { class: "band", hidden: true });
    this.body.append(this.band);
    this.element = h("div", { class: "grid-scroll" }, this.body);
    this.element.addEventListener("scroll", () => this.paint(), { passive: true });
    this.watch = new ResizeObserver(() => this.measure());
    this.watch.observe(this.element);
    this.#mouse();
  }

  close() { this.watch.disconnect(); }

  /** Show groups of tiles: [{label, ids}]; a label makes a heading row. */
  show(groups) {
    const focused = this.ids[this.focus];
    this.groups = groups;
    this.ids = groups.length === 1 ? groups[0].ids : groups.flatMap((group) => group.ids);
    this.index = new Map(this.ids.map((id, at) => [id, at]));
    const kept = this.index.get(focused);
    this.focus = kept ?? Math.max(0, Math.min(this.focus, this.ids.length - 1));
    this.measure(true);
  }

  measure(force = false) {
    const width = this.element.clientWidth - 2 * GAP, height = this.element.clientHeight;
    if (width <= 0) {
      this.width = 0; // out of sight: laid out when it is seen
      return;
    }
    if (!force && width === this.width && height === this.height) return;
    const top = this.#topId();
    Object.assign(this, { width, height });
    const least = Math.sqrt((width * height) / (MOST_TILES * 0.7)); // a wall of screens: larger tiles
    const size = Math.max(Math.min(this.size, (width - 2 * GAP) / 3), least);
    this.columns = Math.max(1, Math.floor((width + GAP) / (size + GAP)));
    this.cell = this.columns > 3 || width < 500 ? Math.floor((width + GAP) / this.columns) - GAP : size;
    this.#layout();
    if (!force && top !== undefined) this.#reveal(this.index.get(top), true);
    this.paint(true);
  }

  #layout() {
    this.rows = [];
    let y = GAP, from = 0;
    const tall = this.cell + this.foot;
    for (const { label, ids } of this.groups || []) {
      if (label) {
        this.rows.push({ y, high: 30, label });
        y += 30 + GAP;
      }
      for (let at = 0; at < ids.length; at += this.columns) {
        this.rows.push({ y, high: tall, from: from + at, to: from + Math.min(at + this.columns, ids.length) });
        y += tall + GAP;
      }
      from += ids.length;
    }
    this.body.style.height = `${y}px`;
    this.body.setAttribute("aria-rowcount", this.rows.length);
    this.body.setAttribute("aria-colcount", this.columns);
  }

  #rowAt(y) {
    let low = 0, high = this.rows.length;
    while (low < high) {
      const mid = (low + high) >> 1;
      if (this.rows[mid].y + this.rows[mid].high < y) low = mid + 1;
      else high = mid;
    }
    return low;
  }

  #rowOf(at) {
    let low = 0, high = this.rows.length - 1;
    while (low < high) {
      const mid = (low + high + 1) >> 1;
      let first = mid;
      while (this.rows[first].from === undefined && first < this.rows.length - 1) first++;
      if (this.rows[first].from <= at) low = mid;
      else high = mid - 1;
    }
    while (low < this.rows.length - 1 && this.rows[low].from === undefined) low++;
    return low;
  }

  #topId() {
    const row = this.rows.slice(this.#rowAt(this.element.scrollTop)).find((one) => one.from !== undefined);
    return row && this.ids[row.from];
  }

  /** Make the elements near the window, with `force` those anew that changed; the focus stays. */
  paint(force = false) {
    const had = this.element.contains(document.activeElement);
    this.#draw(force);
    if (had && this.ids.length && !document.activeElement.closest(".cell")) this.#cell(this.focus)?.focus({ preventScroll: true });
  }

  #draw(force = false) {
    if (force) {
      for (const [row, el] of this.live) {
        if (this.rows[row] && el.stamp === this.#stampOf(row)) continue;
        this.#discard(el);
        this.live.delete(row);
      }
    }
    if (this.rows.length) {
      const top = this.element.scrollTop;
      const seen = Math.ceil(this.height / (this.cell + this.foot + GAP)) + 1;
      const spare = Math.max(0, Math.floor((MOST_TILES / this.columns - seen - 1) / 2));
      const extra = Math.min(spare, seen) * (this.cell + this.foot + GAP);
      const first = this.#rowAt(top - extra);
      const last = Math.min(this.rows.length - 1, this.#rowAt(top + this.height + extra));
      const wanted = new Set(this.ids.length ? [this.#rowOf(this.focus)] : []);
      for (let row = first; row <= last; row++) wanted.add(row);
      for (const [row, el] of this.live) {
        if (wanted.has(row)) continue;
        this.#discard(el);
        this.live.delete(row);
      }
      for (const row of wanted) if (!this.live.has(row)) this.#makeRow(row);
      if (force) for (const cell of this.body.querySelectorAll(".cell")) cell.tabIndex = cell.dataset.id === this.focusedId ? 0 : -1;
    }
  }

  #stampOf(number) {
    const { y, high, from, to, label } = this.rows[number];
    const about = [y, high, this.cell, label, this.ids.length];
    for (let at = from ?? 0; at < (to ?? 0); at++) about.push(this.ids[at], this.stamp(this.ids[at]));
    return about.join("\n");
  }

  #discard(el) {
    for (const img of el.querySelectorAll("img")) if (!img.complete) img.removeAttribute("src");
    el.remove();
  }

  #makeRow(number) {
    const row = this.rows[number];
    const el = h("div", { role: "row", class: "row", "aria-rowindex": number + 1, style: { top: `${row.y}px`, height: `${row.high}px` } });
    if (row.label) {
      el.append(h("div", { role: "rowheader", class: "row-head" }, row.label));
      el.classList.add("heading");
    } else {
      for (let at = row.from; at < row.to; at++) el.append(this.#makeCell(at, at - row.from));
    }
    el.stamp = this.#stampOf(number);
    this.live.set(number, el);
    const after = [...this.live.keys()].filter((other) => other > number).sort((a, b) => a - b)[0];
    this.body.insertBefore(el, after === undefined ? this.band : this.live.get(after));
  }

  #makeCell(at, column) {
    const id = this.ids[at];
    const cell = h("div", {
      role: "gridcell", class: "cell", tabIndex: at === this.focus ? 0 : -1, "data-id": id ?? "",
      "aria-colindex": column + 1, "aria-selected": this.selection.has(id),
      "aria-label": this.name(id, at), style: { width: `${this.cell}px`, "--cell": `${this.cell}px` },
    }, this.tile(id, this.cell));
    cell.addEventListener("focus", () => this.#focused(this.index.get(id)));
    return cell;
  }

  #focused(at) {
    if (at === undefined || at === this.focus) return;
    this.#cell(this.focus)?.setAttribute("tabindex", -1);
    this.focus = at;
    this.#cell(at)?.setAttribute("tabindex", 0);
    this.moved(this.ids[at]);
  }

  #cell(at) { return this.body.querySelector(`[data-id="${CSS.escape(this.ids[at] ?? "-")}"]`); }

  get focusedId() { return this.ids[this.focus]; }

  /** Put the keyboard on a tile without moving the view more than it must. */
  focusCell(at = this.focus, reveal = false) {
    at = Math.max(0, Math.min(at, this.ids.length - 1));
    if (!this.ids.length) {
      this.element.tabIndex = -1;
      return this.element.focus({ preventScroll: true });
    }
    const before = this.focus;
    this.focus = at;
    if (reveal) this.#reveal(at);
    if (before !== at) this.#cell(before)?.setAttribute("tabindex", -1);
    this.#draw();
    const cell = this.#cell(at);
    cell?.setAttribute("tabindex", 0);
    cell?.focus({ preventScroll: true });
    if (before !== at) this.moved(this.ids[at]);
  }

  #reveal(at, toTop = false) {
    if (at === undefined || !this.rows.length) return;
    const row = this.rows[this.#rowOf(at)];
    if (!row) return;
    const box = this.element, top = row.y - GAP, end = row.y + row.high + GAP;
    if (toTop || top < box.scrollTop) box.scrollTop = top;
    else if (end > box.scrollTop + box.clientHeight) box.scrollTop = end - box.clientHeight;
  }

  /** Show which tiles are chosen. */
  marks() {
    for (const cell of this.body.querySelectorAll(".cell")) {
      cell.setAttribute("aria-selected", this.selection.has(cell.dataset.id));
    }
  }

  // ---- keys --------------------------------------------------------------------------------------

  /** Where an arrow leads from the focus. */
  #step(key) {
    const at = this.focus, last = this.ids.length - 1;
    const row = this.#rowOf(at), column = at - this.rows[row].from;
    const jump = (rows) => {
      let to = row, left = Math.abs(rows);
      while (left && this.rows[to + Math.sign(rows)]) {
        to += Math.sign(rows);
        if (this.rows[to].from !== undefined) left--;
      }
      return this.rows[to].from === undefined ? at : Math.min(this.rows[to].from + column, this.rows[to].to - 1);
    };
    const page = Math.max(1, Math.floor(this.height / (this.cell + this.foot + GAP)) - 1);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: jump(-1), ArrowDown: jump(1), Home: 0, End: last, PageUp: jump(-page), PageDown: jump(page) }[key];
    return Math.max(0, Math.min(last, to));
  }

  /** What the keys of the scope "grid" do. */
  acts() {
    const step = (key) => this.focusCell(this.#step(key.replace(/^.*\+/, "")), true);
    return {
      move: ({ key }) => step(key),
      moveOnly: ({ key }) => step(key),
      range: ({ key }) => {
        this.selection.anchor ??= this.focusedId;
        step(key);
        this.selection.range(this.ids, this.focusedId);
      },
      toggle: () => this.ids.length && this.selection.toggle(this.focusedId),
      open: () => this.ids.length && this.openTile(this.focusedId),
      none: () => this.selection.clear(),
      chooseAll: () => this.selection.set(this.ids),
      invert: () => this.selection.set(this.ids.filter((id) => !this.selection.has(id))),
    };
  }

  // ---- mouse and finger --------------------------------------------------------------------------

  #mouse() {
    const body = this.element;
    const idOf = (target) => target.closest?.(".cell")?.dataset.id;
    let start = null;
    const end = () => {
      clearTimeout(start?.timer);
      this.band.hidden = true;
      document.removeEventListener("keydown", escape, true);
      start = null;
    };
    const escape = (event) => {
      if (event.key !== "Escape" || !start?.banding) return;
      event.preventDefault();
      event.stopPropagation();
      this.selection.set(start.before);
      end();
    };
    body.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.offsetX > body.clientWidth && event.target === body) return;
      const { x, y } = this.#inside(event);
      start = { x, y, cx: event.clientX, cy: event.clientY, id: idOf(event.target), touch: event.pointerType === "touch", before: this.selection.list(), shift: event.shiftKey, ctrl: event.ctrlKey || event.metaKey };
      if (start.touch && start.id) start.timer = setTimeout(() => this.#hold(start), HOLD_MS);
    });
    body.addEventListener("pointermove", (event) => {
      if (!start) return;
      const far = Math.hypot(event.clientX - start.cx, event.clientY - start.cy);
      if (start.touch) {
        if (far > SLIP_PX && !start.held) clearTimeout(start.timer);
        if (start.held) this.#slide(event);
        else if (far > SLIP_PX) start.moved = true;
        return;
      }
      if (!start.banding && far > BAND_PX) {
        start.banding = true;
        body.setPointerCapture(event.pointerId);
        document.addEventListener("keydown", escape, true);
      }
      if (start.banding) this.#stretch(start, event);
    });
    body.addEventListener("pointerup", () => {
      const was = start;
      end();
      if (!was || was.banding || was.held || was.moved) return;
      if (was.id) this.#click(was);
      else if (!was.touch && !was.shift && !was.ctrl) this.selection.clear();
    });
    body.addEventListener("pointercancel", end);
    body.addEventListener("dblclick", (event) => idOf(event.target) && this.openTile(idOf(event.target)));
    body.addEventListener("contextmenu", (event) => {
      const id = idOf(event.target);
      if (!id) return;
      event.preventDefault();
      if (start?.touch || start?.held) return;
      if (!this.selection.has(id)) this.selection.set([id], id);
      this.focusCell(this.index.get(id));
    });
  }

  #inside(event) {
    const box = this.body.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #click({ id, shift, ctrl, touch }) {
    this.focusCell(this.index.get(id));
    if (touch) return this.selection.size ? this.selection.toggle(id) : this.openTile(id);
    if (shift) return this.selection.range(this.ids, id);
    if (ctrl) return this.selection.toggle(id);
    return this.selection.set([id], id);
  }

  #hold(start) {
    start.held = true;
    if (navigator.userActivation?.hasBeenActive) navigator.vibrate?.(15);
    this.selection.toggle(start.id);
    this.selection.anchor = start.id;
    this.focusCell(this.index.get(start.id));
  }

  #slide(event) {
    const under = document.elementFromPoint(event.clientX, event.clientY)?.closest?.(".cell");
    if (under && this.body.contains(under)) this.selection.range(this.ids, under.dataset.id);
  }

  #stretch(start, event) {
    const { x, y } = this.#inside(event);
    const left = Math.min(x, start.x), right = Math.max(x, start.x);
    const top = Math.min(y, start.y), bottom = Math.max(y, start.y);
    Object.assign(this.band.style, { left: `${left}px`, top: `${top}px`, width: `${right - left}px`, height: `${bottom - top}px` });
    this.band.hidden = false;
    const hit = this.#under(left, top, right, bottom);
    const before = new Set(start.before);
    if (start.ctrl) this.selection.set([...start.before.filter((id) => !hit.has(id)), ...[...hit].filter((id) => !before.has(id))]);
    else this.selection.set(start.shift ? new Set([...before, ...hit]) : hit);
    const view = this.element.getBoundingClientRect();
    if (event.clientY < view.top + EDGE_PX) this.element.scrollTop -= 16;
    if (event.clientY > view.bottom - EDGE_PX) this.element.scrollTop += 16;
  }

  /** Ids of the tiles that a rectangle touches, drawn or not. */
  #under(left, top, right, bottom) {
    const hit = new Set();
    for (let number = this.#rowAt(top); number < this.rows.length && this.rows[number].y < bottom; number++) {
      const row = this.rows[number];
      for (let at = row.from ?? 0; at < (row.to ?? 0); at++) {
        const x = (at - row.from) * (this.cell + GAP);
        if (x < right && x + this.cell > left) hit.add(this.ids[at]);
      }
    }
    return hit;
  }
}
