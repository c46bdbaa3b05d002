// The one way elements are made, and the voice for screen readers. Nothing here takes markup.

/** An element: `props` are properties, on* listeners, aria-*, role, data-* attributes, style a map. */
export function h(tag, props = {}, ...children) {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "style") for (const [k, v] of Object.entries(value)) el.style.setProperty(k, v);
    else if (name.startsWith("on")) el.addEventListener(name.slice(2), value);
    else if (/^(aria-|data-|role$|for$|list$|lang$|dir$|popover)/.test(name)) el.setAttribute(name, value);
    else el[name === "class" ? "className" : name] = value;
  }
  el.append(...present(children));
  return el;
}

const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Put these children in place of all that an element had. */
export const fill = (el, ...children) => el.replaceChildren(...present(children));

/** A name that cannot turn the text around it. */
export const bdi = (text) => h("bdi", { dir: "auto" }, text);

/** The address of a face's thumbnail that is at least `px` wide on this screen. */
export function thumb(hash, px) {
  const wanted = px * Math.min(2, devicePixelRatio || 1) * 0.9;
  return `/t/${hash}-${wanted <= 96 ? 96 : wanted <= 192 ? 192 : 384}.jpg`;
}

/** A face; where it cannot be read the mark of a broken picture shows. */
export function face(hash, px, props = {}) {
  const img = h("img", { alt: "", width: px, height: px, draggable: false, decoding: "async", ...props });
  img.addEventListener("error", () => img.classList.add("gone"));
  if (hash) img.src = thumb(hash, px);
  else img.classList.add("gone");
  return img;
}

const SAID_MS = 700; // of fast answers only the last is read out
const regions = {};

/** Two live regions; `say` writes to them. */
export function voices() {
  regions.polite = h("div", { class: "unseen", role: "status", "aria-live": "polite" });
  regions.assertive = h("div", { class: "unseen", role: "alert", "aria-live": "assertive" });
  return [regions.polite, regions.assertive];
}

const HELD_MS = 1500; // so long no word of an act that was on its way takes the place of a warning
const waiting = { warned: 0 };

/** Say a text to those who listen. */
export function tell(text, urgent = false) {
  const to = urgent ? "assertive" : "polite";
  clearTimeout(waiting[to]);
  waiting[to] = setTimeout(() => { regions[to].textContent = text; }, urgent ? 0 : SAID_MS);
}

/** Say a text to those who listen, and show it for a while to those who look. */
export function say(text, urgent = false) {
  tell(text, urgent);
  const toast = document.getElementById("toast");
  if (!toast || (!urgent && Date.now() < waiting.warned)) return;
  if (urgent) waiting.warned = Date.now() + HELD_MS;
  toast.textContent = text;
  toast.className = urgent ? "urgent" : "";
  toast.hidden = false;
  clearTimeout(waiting.toast);
  waiting.toast = setTimeout(() => { toast.hidden = true; }, urgent ? 8000 : 3500);
}

/** An identifier of an act; crypto.randomUUID is missing where the address is not loopback. */
export function uuid() {
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0"));
  return hex.join("").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/** Call `act` once things have been quiet for `ms`. */
export function later(ms, act) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...args), ms);
  };
}

/** A value kept for this tab. */
export const tabStore = {
  get: (key, other = null) => {
    try { return JSON.parse(sessionStorage.getItem(`review.${key}`)) ?? other; } catch { return other; }
  },
  set: (key, value) => {
    try { sessionStorage.setItem(`review.${key}`, JSON.stringify(value)); } catch { /* full: not kept */ }
  },
};

/** A value kept for this browser. */
export const browserStore = {
  get: (key, other = null) => {
    try { return JSON.parse(localStorage.getItem(`review.${key}`)) ?? other; } catch { return other; }
  },
  set: (key, value) => {
    try { localStorage.setItem(`review.${key}`, JSON.stringify(value)); } catch { /* full: not kept */ }
  },
};
