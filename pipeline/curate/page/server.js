// @ts-check
// Requests to the server, and the thumbnails that it sends.

const BATCH = 64, PARALLEL = 3, CACHED = 2500;

const token = location.hash.slice(1);

/** @returns {Promise<Response>} */
export async function ask(path, body) {
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST", body, headers: { "X-Curate-Token": token },
  }).catch(() => { throw new Error("the server does not respond; start it again, then reload this page"); });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

/** Thumbnails as data URLs: loads what is wanted now, and keeps the last few thousand. */
export class Thumbnails {
  /** @param {() => void} loaded */
  constructor(loaded, failed) {
    this.loaded = loaded;
    this.failed = failed;
    this.urls = new Map();
    this.asked = new Set();
    this.wanted = [];
  }

  /** The URL of a thumbnail, "" if there is none, undefined if it is not loaded. */
  get(id) {
    const url = this.urls.get(id);
    if (url !== undefined) {
      this.urls.delete(id);
      this.urls.set(id, url); // the least recently used come first
    }
    return url;
  }

  /** Load these, and no longer those wanted before. */
  want(ids) {
    this.wanted = ids.filter((id) => !this.urls.has(id) && !this.asked.has(id));
    while (this.wanted.length && this.running < PARALLEL) this.load(this.wanted.splice(0, BATCH));
  }

  running = 0;

  async load(ids) {
    this.running++;
    ids.forEach((id) => this.asked.add(id));
    try {
      const lines = (await (await ask("thumbnails", Uint32Array.from(ids))).text()).split("\n");
      ids.forEach((id, i) => this.urls.set(id, lines[i] && `data:image/jpeg;base64,${lines[i]}`));
      for (const id of this.urls.keys()) {
        if (this.urls.size <= CACHED) break;
        this.urls.delete(id);
      }
      this.loaded();
    } catch (error) {
      this.failed(error);
    } finally {
      ids.forEach((id) => this.asked.delete(id));
      this.running--;
    }
    this.want(this.wanted);
  }
}
