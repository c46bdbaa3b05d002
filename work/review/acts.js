// What the person does: kept in the outbox first, then sent in order; undo and redo.
import { browserStore, say, tabStore, uuid } from "./dom.js";
import { Refused, emit, listen, net, post, tab } from "./api.js";
import * as outbox from "./outbox.js";
import { t } from "./texts.js";

const MOST_WAITING = 20; // acts without an answer, then the keys are locked
const MOST_KEPT = 200; // acts of this tab whose place is remembered
const SLOWEST_MS = 5000; // between two tries
const MOST_TRIES = 3; // of an act that the server stumbles over
const ADOPT_MS = 5000; // after which an act of a closed tab is sent by this one

export const rev = { seen: 0 }; // number of the last line of the decisions this page knows of
const queue = []; // [{key, entry, resolve}] in the order they were made
let pumping = false;
let taking = 0; // acts on their way into the outbox

/** How many acts the server has not answered yet. */
export const waiting = () => queue.length + taking;

/** Whether no more acts can be taken for now; says so. */
export function locked() {
  if (waiting() < MOST_WAITING) return false;
  say(t("locked", { n: waiting() }), true);
  return true;
}

/** Put an act into the outbox; from now on it counts as waiting. */
async function keep(entry) {
  taking += 1;
  emit("outbox");
  try {
    return await outbox.add(entry);
  } finally {
    taking -= 1;
  }
}

/** Acts of this tab, newest last: [{op, route, what, ...what the screen needs to go back}]. */
const done = tabStore.get("done", []);
export const lastActs = () => done;
const keepDone = () => {
  done.splice(0, Math.max(0, done.length - MOST_KEPT));
  tabStore.set("done", done);
};

async function put(path, body, extra = {}) {
  const entry = { path, body, at: Date.now(), ...extra };
  const key = await keep(entry);
  return new Promise((resolve) => {
    queue.push({ key, entry, resolve, tries: 0 });
    emit("outbox");
    pump();
  });
}

/**
 * Take an act: `items` as the server knows them, `memo` what undo needs to come back here.
 * Answers {op, reply} where reply is a promise of the server's word, null where it refused.
 */
export async function decide(items, memo = {}) {
  if (locked()) return null;
  const op = uuid();
  done.push({ op, route: location.hash, ...memo });
  keepDone();
  const body = { op, base: rev.seen, tab, items };
  const entry = { path: "/api/decisions", body, at: Date.now(), what: memo.what || "" };
  const key = await keep(entry);
  const reply = new Promise((resolve) => queue.push({ key, entry, resolve, tries: 0 }));
  emit("outbox");
  pump();
  return { op, reply };
}

/** Undo an act of this tab, or the act `which`; answers {memo, reply} or null. */
export async function undo(which = null) {
  if (locked()) return null;
  const at = which ? done.findLastIndex((one) => one.op === which) : done.length - 1;
  const memo = at < 0 ? null : done.splice(at, 1)[0];
  keepDone();
  const op = which || memo?.op;
  const reply = put("/api/undo", { op: uuid(), tab, ...(op ? { which: op } : {}) }, { undo: true });
  return { memo, reply };
}

/** Take back the last undo of this tab. */
export async function redo() {
  if (locked()) return null;
  const op = uuid();
  return { reply: put("/api/redo", { op, tab }, { redo: true }) };
}

/** A later act of the redone kind can be undone again. */
export function redone(op, route) {
  done.push({ op, route });
  keepDone();
}

/** Send a box drawn on a photo: {job}, null where refused. */
export async function sendBox(body) {
  if (locked()) return null;
  const op = uuid();
  done.push({ op, route: location.hash, what: t("did.box") });
  keepDone();
  return put("/api/boxes", { op, base: rev.seen, tab, ...body }, { what: t("did.box") });
}

// ---- refused acts stay to be seen in History --------------------------------------------------

/** Acts the server would not take: [{entry, status, body, at}]. */
export const refusedActs = () => browserStore.get("refused", []);

export function dropRefused(op) {
  browserStore.set("refused", refusedActs().filter((one) => one.entry.body.op !== op));
  emit("refused");
}

/** Send a refused act again as it is meant now. */
export function sendAgain(op) {
  const found = refusedActs().find((one) => one.entry.body.op === op);
  if (!found) return null;
  dropRefused(op);
  const body = { ...found.entry.body, op: uuid(), base: Math.max(rev.seen, found.body.rev || 0) };
  done.push({ op: body.op, route: location.hash });
  keepDone();
  return put(found.entry.path, body, { what: found.entry.what });
}

function refuse(entry, error) {
  const at = done.findIndex((one) => one.op === entry.body.op);
  if (at >= 0) done.splice(at, 1);
  keepDone();
  if (error.body.error === "nothing") return say(t(entry.undo ? "undo.nothing" : entry.redo ? "redo.nothing" : "nothing"), true);
  const kept = [...refusedActs(), { entry, status: error.status, body: error.body, at: Date.now() }];
  browserStore.set("refused", kept.slice(-50));
  say(t(error.status === 409 ? "conflict" : "refused", { what: entry.what || "" }), true);
  emit("refused");
}

// ---- sending ------------------------------------------------------------------------------------

let own = { from: -1, to: -1 }; // revisions between which only this page has written

/** The base an act is sent on: own lines that came in between are no news to this page. */
function based(body) {
  if (body.base === undefined) return body;
  return { ...body, base: own.from <= body.base && body.base <= own.to ? own.to : body.base };
}

function learn(sent, reply) {
  const lines = Array.isArray(reply.lines) ? reply.lines.length : reply.lines || 0;
  const base = sent.base ?? rev.seen;
  if (reply.rev - lines === base) {
    own = { from: own.to === base ? own.from : base, to: reply.rev };
    if (rev.seen >= own.from) rev.seen = Math.max(rev.seen, reply.rev);
  }
  const { changed = [], gone = {}, effects = {}, dropped_questions: dropped = [] } = reply;
  if (effects.newly > 0) say(t("newly", { n: effects.newly }));
  emit("changed", { rev: reply.rev, changed, gone, effects, dropped, own: true });
}

async function sendFirst() {
  const { key, entry, resolve } = queue[0];
  try {
    const body = based(entry.body);
    const reply = await post(entry.path, body);
    await leave(key);
    if (reply.rev) learn(body, reply);
    resolve(reply);
  } catch (error) {
    const bug = error.status === 500 && ++queue[0].tries >= MOST_TRIES;
    if (!bug && (!(error instanceof Refused) || error.status >= 500 || error.status === 401)) throw error;
    await leave(key);
    refuse(entry, error);
    emit("changed", { own: true, refused: true, changed: [], gone: {}, dropped: [] });
    resolve(null);
  }
}

async function leave(key) {
  await outbox.remove(key);
  queue.shift();
  emit("outbox");
}

async function pump() {
  if (pumping) return;
  pumping = true;
  let pause = 400;
  while (queue.length && net.known) {
    try {
      await sendFirst();
      pause = 400;
    } catch {
      emit("outbox");
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(SLOWEST_MS, pause * 1.7);
    }
  }
  pumping = false;
}

/** Send what an earlier page could not: this tab's at once, another's once it is old. */
export async function resume() {
  for (const [key, entry] of await outbox.all()) {
    const mine = entry.body.tab === tab || Date.now() - entry.at > ADOPT_MS;
    if (mine) queue.push({ key, entry, resolve: () => {}, tries: 0 });
  }
  if (queue.length) emit("outbox");
  pump();
}

listen("net", () => pump());
