// @ts-check
// All images: their columns, and what the limits and the decisions say about them.

import { ask } from "./server.js";

const ARRAYS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array,
};
export const NONE = 0, KEEP = 1, REJECT = 2;

export class Images {
  constructor(header, columns) {
    this.header = header;
    this.columns = columns;
    this.permanent = new Set(header.permanent);
  }

  static async load() {
    const bytes = await (await ask("images")).arrayBuffer();
    const length = new DataView(bytes).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    const columns = {};
    for (const [name, { type, at }] of Object.entries(header.columns)) {
      const width = name === "color" ? 3 : 1;
      columns[name] = new ARRAYS[type](bytes, 4 + length + at, header.count * width);
    }
    return new Images(header, columns);
  }

  /** True if no decision can keep the image. */
  isLocked(id) {
    return this.permanent.has(this.columns.reason[id]);
  }

  /** True if the limits and the decisions together reject the image. */
  isRejected(id) {
    const state = this.columns.state[id];
    if (state === NONE || this.isLocked(id)) return this.columns.reason[id] !== this.header.kept;
    return state === REJECT;
  }

  /** Why the image is rejected. */
  why(id) {
    return this.columns.state[id] === REJECT && !this.isLocked(id) ? "rejected by you" : this.reasonName(this.columns.reason[id]);
  }

  reasonName(reason) {
    return this.header.reasons[reason].replaceAll("_", " ");
  }

  counts() {
    let rejected = 0, decided = 0;
    for (let id = 0; id < this.header.count; id++) {
      rejected += +this.isRejected(id);
      decided += +(this.columns.state[id] !== NONE);
    }
    return { kept: this.header.count - rejected, rejected, decided };
  }
}
