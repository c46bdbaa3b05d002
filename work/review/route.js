// Addresses of the screens: #/person/ID?show=doubtful. They survive reload and Back.
import { tabStore } from "./dom.js";

/** The screen an address means: {name, arg, query}. */
export function route(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name: name || "people", arg: rest.map(decodeURIComponent).join("/"), query: new URLSearchParams(query) };
}

/** The address of a screen. */
export function address(name, arg = "", query = {}) {
  const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value));
  return `#/${name}${arg ? `/${encodeURIComponent(arg)}` : ""}${[...given].length ? `?${given}` : ""}`;
}

export const go = (name, arg, query) => { location.hash = address(name, arg, query); };

/** Change the address without a step in the browser's history. */
export function amend(query) {
  const here = route();
  for (const [key, value] of Object.entries(query)) {
    if (value) here.query.set(key, value);
    else here.query.delete(key);
  }
  history.replaceState(history.state, "", address(here.name, here.arg, Object.fromEntries(here.query)));
}

/** Where a list of this address was scrolled to. */
export const place = {
  key: () => location.hash.split("?")[0],
  keep(top, id) { tabStore.set(`place.${place.key()}`, { top, id }); },
  get: () => tabStore.get(`place.${place.key()}`, { top: 0, id: null }),
};
