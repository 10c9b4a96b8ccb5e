// @ts-check
// A grid of tiles in groups. Only the tiles near the viewport exist; scrolling reuses them.

const GAP = 6, HEADER = 46, MARGIN = 16, OVERSCAN = 0.6, SETTLE = 60, PER_FRAME = 18;

export class Grid {
  /**
   * @param {HTMLElement} box the element that scrolls
   * @param {HTMLElement} rows the element in it that is as tall as all rows
   * @param {{ draw: Function, header: Function, want: Function, picture: (id: number) => string | undefined }} view
   *   draws a tile or a group's header, loads pictures, and returns the URL of a loaded one
   */
  constructor(box, rows, view) {
    this.box = box;
    this.rows = rows;
    this.view = view;
    this.groups = [];
    this.ids = new Uint32Array(0);
    this.size = 132;
    /** @type {Map<number, any>} */
    this.tiles = new Map(); // by position in `ids`
    this.headers = new Map();
    this.spare = [];
    box.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(box);
  }

  /** Show groups of images: { title, ids, … }; a group without title has no header. */
  show(groups) {
    this.groups = groups;
    this.ids = new Uint32Array(groups.reduce((sum, group) => sum + group.ids.length, 0));
    let at = 0;
    for (const group of groups) {
      this.ids.set(group.ids, at);
      group.start = at;
      at += group.ids.length;
    }
    this.box.scrollTop = 0;
    this.layout();
  }

  layout() {
    const width = this.box.clientWidth - 2 * MARGIN, cell = this.size + GAP;
    if (width <= 0) return;
    this.columns = Math.max(1, Math.floor((width + GAP) / cell));
    let top = GAP;
    for (const group of this.groups) {
      group.top = top;
      group.body = top + (group.title ? HEADER : 0);
      top = group.body + Math.ceil(group.ids.length / this.columns) * cell + (group.title ? GAP : 0);
    }
    this.rows.style.width = `${this.columns * cell - GAP}px`;
    this.rows.style.height = `${top + GAP}px`;
    for (const tile of [...this.tiles.values(), ...this.headers.values()]) tile.remove();
    this.tiles.clear();
    this.headers.clear();
    this.spare.length = 0;
    this.render();
  }

  soon() {
    this.waiting ||= requestAnimationFrame(() => {
      this.waiting = 0;
      this.render();
    });
  }

  /** The last group that begins above `y`. */
  groupAt(y) {
    let low = 0, high = this.groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.groups[middle].top <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  groupOf(position) {
    let low = 0, high = this.groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.groups[middle].start <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  render() {
    const height = this.box.clientHeight, cell = this.size + GAP, columns = this.columns || 1;
    const from = this.box.scrollTop - OVERSCAN * height, to = this.box.scrollTop + (1 + OVERSCAN) * height;
    const tiles = new Map(), headers = new Map(), fresh = [];
    for (let g = this.groupAt(from); g < this.groups.length && this.groups[g].top < to; g++) {
      const group = this.groups[g], count = group.ids.length;
      if (group.title) headers.set(g, this.headers.get(g));
      const first = Math.max(0, Math.floor((from - group.body) / cell)) * columns;
      const last = Math.min(count, Math.ceil(Math.max(0, to - group.body) / cell) * columns);
      for (let i = first; i < last; i++) tiles.set(group.start + i, this.tiles.get(group.start + i));
    }
    for (const [position, tile] of this.tiles) if (!tiles.has(position)) this.spare.push(tile);
    for (const [g, header] of this.headers) if (!headers.has(g)) header.remove();
    for (const [position, tile] of tiles) if (!tile) fresh.push(position);
    for (const position of fresh) tiles.set(position, this.place(position, this.spare.pop()));
    for (const tile of this.spare) tile.hidden = true;
    for (const [g, header] of headers) headers.set(g, header || this.placeHeader(g));
    this.tiles = tiles;
    this.headers = headers;
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.want(), SETTLE); // nothing is loaded for what flies past
    const isFlying = Math.abs(this.box.scrollTop - (this.seen || 0)) > height;
    this.seen = this.box.scrollTop;
    if (fresh.length <= PER_FRAME) this.fill();
    if (!isFlying && performance.now() - (this.wanted || 0) > 2 * SETTLE) this.want();
  }

  want() {
    this.wanted = performance.now();
    const middle = this.box.scrollTop + this.box.clientHeight / 2;
    const near = [...this.tiles].sort(([, a], [, b]) => Math.abs(a.y - middle) - Math.abs(b.y - middle));
    this.view.want(near.map(([position]) => this.ids[position]));
    this.fill();
  }

  /** Show the pictures that are loaded, a few per frame. */
  fill() {
    cancelAnimationFrame(this.filling);
    let left = PER_FRAME;
    for (const [position, tile] of this.tiles) {
      const url = tile.filled ? undefined : this.view.picture(this.ids[position]);
      if (url === undefined) continue;
      tile.filled = true;
      if (url) tile.firstChild.src = url;
      if (!--left) {
        this.filling = requestAnimationFrame(() => this.fill());
        break;
      }
    }
  }

  place(position, tile) {
    if (!tile) {
      tile = document.createElement("div");
      tile.className = "tile";
      tile.setAttribute("role", "option");
      tile.innerHTML = '<img alt="" decoding="async" draggable="false"><span class="why"></span><span class="mark"></span>';
      tile.firstChild.onload = () => tile.firstChild.classList.add("loaded");
      tile.style.width = tile.style.height = `${this.size}px`;
      this.rows.append(tile);
    }
    const { x, y } = this.whereIs(position);
    tile.hidden = false;
    tile.position = position;
    tile.y = y;
    tile.id = `tile-${position}`;
    tile.style.transform = `translate(${x}px, ${y}px)`;
    tile.filled = false;
    tile.firstChild.classList.remove("loaded");
    tile.firstChild.removeAttribute("src");
    this.view.draw(tile, this.ids[position], true);
    return tile;
  }

  placeHeader(g) {
    const header = document.createElement("div");
    header.className = "group";
    header.style.transform = `translateY(${this.groups[g].top}px)`;
    this.view.header(header, this.groups[g]);
    this.rows.append(header);
    return header;
  }

  whereIs(position) {
    const group = this.groups[this.groupOf(position)], at = position - group.start, cell = this.size + GAP;
    return { x: (at % this.columns) * cell, y: group.body + Math.floor(at / this.columns) * cell };
  }

  /** Draw the existing tiles and headers again. */
  refresh() {
    for (const [position, tile] of this.tiles) this.view.draw(tile, this.ids[position], false);
    for (const [g, header] of this.headers) this.view.header(header, this.groups[g]);
  }

  reveal(position) {
    const { y } = this.whereIs(position), height = this.box.clientHeight, group = this.groups[this.groupOf(position)];
    const top = position - group.start < this.columns ? group.top : y;
    if (top < this.box.scrollTop) this.box.scrollTop = top - GAP;
    else if (y + this.size > this.box.scrollTop + height) this.box.scrollTop = y + this.size + GAP - height;
  }

  /** Scroll so that the group of an image begins at the top. */
  revealGroup(position) {
    this.box.scrollTop = this.groups[this.groupOf(position)].top;
  }

  /** The position one row up or down (`step` -1 or 1), in the same column if possible. */
  vertical(position, step) {
    const g = this.groupOf(position), group = this.groups[g], at = position - group.start;
    const column = at % this.columns, row = Math.floor(at / this.columns), rows = Math.ceil(group.ids.length / this.columns);
    if (row + step >= 0 && row + step < rows) return group.start + Math.min(group.ids.length - 1, at + step * this.columns);
    const next = this.groups[g + step];
    if (!next) return position;
    const last = (Math.ceil(next.ids.length / this.columns) - 1) * this.columns;
    return next.start + Math.min(next.ids.length - 1, (step > 0 ? 0 : last) + column);
  }

  page(position, step) {
    const rows = Math.max(1, Math.floor(this.box.clientHeight / (this.size + GAP)));
    for (let i = 0; i < rows; i++) position = this.vertical(position, step);
    return position;
  }
}
