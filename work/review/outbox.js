// Acts that the server has not yet said to have on disk, kept in the browser's own database.

const NAME = "review";
const STORE = "outbox";
let opening = null;
let memory = null; // where the browser gives no database: acts live as long as the page

function open() {
  opening ??= new Promise((resolve) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE, { autoIncrement: true });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => {
      memory = new Map();
      resolve(null);
    };
  });
  return opening;
}

async function change(mode, act) {
  const base = await open();
  return new Promise((resolve, reject) => {
    const transaction = base.transaction(STORE, mode);
    const request = act(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

/** Keep an act; the key under which it is kept. */
export async function add(entry) {
  await open();
  if (!memory) return change("readwrite", (store) => store.add(entry));
  const key = Date.now() + memory.size / 1000;
  memory.set(key, entry);
  return key;
}

/** Forget an act that is on the server's disk, or that it will never take. */
export async function remove(key) {
  await open();
  if (memory) memory.delete(key);
  else await change("readwrite", (store) => store.delete(key));
}

/** All acts kept, oldest first: [[key, entry]]. */
export async function all() {
  await open();
  if (memory) return [...memory];
  const keys = await change("readonly", (store) => store.getAllKeys());
  const entries = await change("readonly", (store) => store.getAll());
  return keys.map((key, at) => [key, entries[at]]).filter(([, entry]) => entry);
}
