// @ts-check
// The endless gallery: tiles are drawn near the viewport and released when far away.

import { show } from "./explorer.js";

const BATCH = 8, BATCH_MS = 120, NEAR = "60% 0%";

/** @typedef {HTMLButtonElement & { number: number, stale: boolean, near?: boolean }} Tile */

export class Gallery {
  constructor(explorer, place, end, chosen, view) {
    this.explorer = explorer;
    this.place = place;
    this.chosen = chosen;
    this.view = view;
    this.next = view.first;
    this.busy = false;
    this.batch = 2;
    /** @type {Set<any>} */
    this.wanted = new Set();
    this.watch = new IntersectionObserver((all) => all.forEach((entry) => this.seen(entry)), { rootMargin: NEAR });
    new IntersectionObserver(([entry]) => { this.ending = entry.isIntersecting; this.grow(); }, { rootMargin: NEAR }).observe(end);
  }

  /** Restart from a number. */
  restart(first) {
    this.next = first;
    this.wanted.clear();
    this.place.replaceChildren();
    this.ending = true;
    this.grow();
  }

  /** Redraw all tiles after truncation or label changed. */
  refresh() {
    for (const tile of this.place.children) {
      tile.stale = true;
      if (tile.near) this.wanted.add(tile);
    }
    this.work();
  }

  mark(number) {
    for (const tile of this.place.children) tile.setAttribute("aria-current", tile.number === number);
  }

  grow() {
    if (!this.ending) return;
    const columns = getComputedStyle(this.place).gridTemplateColumns.split(" ").length;
    for (let i = 0; i < Math.max(2 * columns, 12); i++) this.add(this.next++ % 4294967296);
    requestAnimationFrame(() => {
      if (document.documentElement.scrollHeight < scrollY + 1.6 * innerHeight) this.grow();
    });
  }

  add(number) {
    const tile = /** @type {Tile} */ (document.createElement("button"));
    Object.assign(tile, { className: "tile", number, stale: true });
    tile.setAttribute("aria-label", `picture ${number}`);
    tile.append(document.createElement("canvas"));
    tile.onclick = () => this.chosen(number);
    this.place.append(tile);
    this.watch.observe(tile);
  }

  seen({ target, isIntersecting }) {
    target.near = isIntersecting;
    if (isIntersecting && target.stale) {
      this.wanted.add(target);
      this.work();
    } else if (!isIntersecting) {
      this.wanted.delete(target);
      target.stale = true;
      target.classList.remove("drawn");
      target.firstChild.width = target.firstChild.height = 0; // releases its memory
    }
  }

  async work() {
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.wanted.size) {
        await this.view.idle(); // the selected image has priority
        const some = [...this.wanted].slice(0, this.batch), began = performance.now();
        if (!some.length) break; // all of them left the viewport meanwhile
        some.forEach((tile) => { this.wanted.delete(tile); tile.stale = false; });
        const { psi, label } = this.view.now();
        const made = [];
        await this.explorer.wsOf(some.map((t) => t.number), some.map((t) => this.explorer.labelOf(t.number, label)));
        for (const tile of some) made.push(await this.explorer.wsOfPicture({ number: tile.number, label, psi }));
        const images = await this.explorer.draw(made.map((one) => one.ws), made.map((one) => one.label));
        // few at once, so that the selected image never waits long
        const each = (performance.now() - began) / some.length;
        this.batch = Math.max(1, Math.min(BATCH, Math.round(BATCH_MS / each)));
        some.forEach((tile, i) => {
          if (!tile.near) return void (tile.stale = true);
          show(tile.firstChild, images[i]);
          tile.classList.add("drawn");
        });
      }
    } catch (error) {
      this.view.failed(error);
    } finally {
      this.busy = false;
    }
  }
}
