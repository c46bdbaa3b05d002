// The people as the server knows them: one table of columns, and the counts.
import { emit, get, listen } from "./api.js";
import { rev } from "./acts.js";
import { later } from "./dom.js";
import { t } from "./texts.js";

export const NAMED = 1, IGNORED = 2, HIDDEN = 4, SINGLE = 8;

/** The table: columns of equal length, `at` finds a person's row, `stale` when it may be old. */
export const people = { columns: { id: [] }, at: new Map(), stale: true, rev: 0 };
export const state = { counts: {}, queues: {}, wrong: null, apply: {}, conflicts: 0, cache: "" };

let loading = null;

/** Whether the table is as the server has it, as far as is known, and no answer is awaited. */
export const areFresh = () => !loading && !people.stale;

/** The people, read anew where something changed since. */
export function freshPeople() {
  if (areFresh() && people.columns.id.length) return Promise.resolve(people);
  loading ??= readPeople().finally(() => { loading = null; });
  return loading;
}

/** What changes while the answer is on its way may not be in it: then it is asked again. */
async function readPeople() {
  let reply;
  try {
    do {
      people.stale = false;
      reply = await get("/api/people");
    } while (people.stale);
  } catch (error) {
    people.stale = true;
    throw error;
  }
  people.columns = reply.columns;
  people.at = new Map(reply.columns.id.map((id, row) => [id, row]));
  people.rev = reply.rev;
  rev.seen = Math.max(rev.seen, reply.rev);
  emit("people");
  return people;
}

/** The counts of the bar. */
export async function loadState() {
  Object.assign(state, await get("/api/state"));
  emit("state");
  return state;
}

const soon = later(250, () => {
  loadState().catch(() => {});
});

listen("changed", () => {
  people.stale = true;
  soon();
});

/** One person's row as an object, null where it is not there. */
export function personOf(id) {
  const row = people.at.get(id);
  if (row === undefined) return null;
  const one = { row };
  for (const [name, column] of Object.entries(people.columns)) one[name] = column[row];
  return one;
}

/** What a person is called: the name, or "unnamed". */
export const called = (name) => name || t("unnamed");

/** Rows of people with a name, largest first: [{id, name, faces}]. */
export function namedPeople() {
  const { id, name, faces, flags } = people.columns;
  const rows = [];
  for (let row = 0; row < id.length; row++) {
    if (name[row] && !(flags[row] & IGNORED)) rows.push({ id: id[row], name: name[row], faces: faces[row] });
  }
  return rows.sort((a, b) => b.faces - a.faces);
}

/** Of several people the one whose name and cover stay: the named one, else the larger. */
export function heirOf(ids) {
  const { faces, name } = people.columns;
  const rows = ids.map((id) => people.at.get(id)).filter((row) => row !== undefined);
  rows.sort((a, b) => !!name[b] - !!name[a] || faces[b] - faces[a]);
  return rows.length ? personOf(people.columns.id[rows[0]]) : null;
}

/** A text without case and accents, to search by. */
export const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/** Change the table at once as an act will change it, until the server's word comes. */
export function foresee(kind, ids, extra = {}) {
  const c = people.columns;
  const rows = ids.map((id) => people.at.get(id)).filter((row) => row !== undefined);
  const bit = { ignore: IGNORED, hide: HIDDEN }[kind];
  for (const row of rows) {
    if (bit) c.flags[row] = extra.off ? c.flags[row] & ~bit : c.flags[row] | bit;
    if (kind === "name") {
      c.name[row] = extra.text;
      c.flags[row] = extra.text ? c.flags[row] | NAMED : c.flags[row] & ~NAMED;
    }
  }
  if (kind === "merge" && rows.length > 1) {
    const heir = people.at.get(heirOf(ids).id);
    const gone = new Set(rows.filter((row) => row !== heir));
    for (const row of gone) for (const name of ["faces", "photos", "doubtful", "exported"]) c[name][heir] += c[name][row];
    c.flags[heir] &= ~SINGLE;
    for (const name of Object.keys(c)) c[name] = c[name].filter((_, row) => !gone.has(row));
    people.at = new Map(c.id.map((id, row) => [id, row]));
  }
  emit("people");
}
