// Requests to the server that gave this page, and its events.
import { browserStore, h, tabStore, uuid } from "./dom.js";

export const bus = new EventTarget();
export const emit = (name, detail = {}) => bus.dispatchEvent(new CustomEvent(name, { detail }));
export const listen = (name, act) => {
  const call = (event) => act(event.detail);
  bus.addEventListener(name, call);
  return () => bus.removeEventListener(name, call);
};

/** Which page this is: kept over a reload. */
export const tab = tabStore.get("tab") || uuid();
tabStore.set("tab", tab);

/** The server said no: its status and what it answered. */
export class Refused extends Error {
  constructor(status, body) {
    super(`refused: ${status}`);
    this.status = status;
    this.body = body || {};
  }
}

const PATIENCE_MS = 20000; // for one answer
export const net = { up: true, known: true };

function isUp(up) {
  if (net.up === up) return;
  net.up = up;
  emit("net");
}

async function ask(path, options) {
  let reply;
  try {
    reply = await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE_MS), ...options });
  } catch (error) {
    isUp(false);
    throw error;
  }
  const body = await reply.json().catch(() => null);
  if (reply.status < 500) isUp(true);
  if (reply.status === 401 && net.known) {
    net.known = false;
    emit("net");
  }
  if (!reply.ok) throw new Refused(reply.status, body);
  return body;
}

export const get = (path) => ask(path, {});

export const post = (path, body) => ask(path, {
  method: "POST",
  headers: { "Content-Type": "application/json", "X-Review-Token": browserStore.get("token", "") },
  body: JSON.stringify(body),
});

/**
 * Trade the one-time code of the opened address for a session, and clean the address. Without a code
 * the token of an earlier visit gives the session back.
 */
export async function session() {
  const code = location.hash.startsWith("#/") ? "" : location.hash.slice(1);
  if (code) history.replaceState(null, "", "/#/people");
  if (!code && !browserStore.get("token")) return;
  const { token } = await post("/api/session", { code });
  browserStore.set("token", token);
}

let source = null;

function hear() {
  if (document.hidden || source) return;
  source = new EventSource("/api/events");
  for (const name of ["hello", "rev", "progress", "preview", "box", "holder", "bye"]) {
    source.addEventListener(name, (event) => emit(`sse-${name}`, JSON.parse(event.data || "{}")));
  }
}

/** Events reach the visible tab only: browsers allow six connections to a host. */
export function events() {
  hear();
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return hear();
    source?.close();
    source = null;
  });
}

/** Start listening again after the server was away. */
export function hearAgain() {
  if (source && source.readyState !== EventSource.CLOSED) return;
  source = null;
  hear();
}

/** A picture read and decoded ahead of its time. */
export const decoded = (img) => (img.src ? img.decode().catch(() => h("i")) : Promise.resolve());
