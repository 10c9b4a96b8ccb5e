// @ts-check
// An image: its number, label and truncation → ws → pixels, computed by one backend.

import { cross, latentsOf, lerp, move, slerp, truncate } from "./latents.js";

export class Explorer {
  constructor(facts, backend) {
    this.facts = facts;
    this.backend = backend;
    this.size = facts.num_ws * facts.w_dim;
    this.known = new Map(); // cache of ws by number and label, the newest few hundred
  }

  /** The label of a number: labels cycle if none is selected (-1). */
  labelOf(number, chosen) {
    const count = this.facts.labels.length;
    return count ? (chosen >= 0 ? chosen : number % count) : 0;
  }

  /** ws of several numbers, untruncated. */
  async wsOf(numbers, labels) {
    const { latent, z_dim } = this.facts, keys = numbers.map((n, i) => `${n} ${labels[i]}`);
    const missing = keys.map((key, i) => (this.known.has(key) ? -1 : i)).filter((i) => i >= 0);
    const found = new Map(keys.map((key) => [key, this.known.get(key)]));
    if (missing.length) {
      const latents = new Float32Array(missing.length * z_dim);
      missing.forEach((i, row) => latents.set(latentsOf(numbers[i], latent, z_dim), row * z_dim));
      const ws = await this.backend.map(latents, missing.map((i) => labels[i]));
      missing.forEach((i, row) => {
        const one = ws.slice(row * this.size, (row + 1) * this.size);
        this.known.set(keys[i], one);
        found.set(keys[i], one);
      });
    }
    while (this.known.size > 400) this.known.delete(this.known.keys().next().value);
    return keys.map((key) => found.get(key));
  }

  /**
   * ws of one image after truncation, mixing and directions.
   * @param {{ number: number, label: number, psi: number, other?: number, share?: number, amounts?: number[] }} image
   */
  async wsOfPicture({ number, label, psi, other = -1, share = 0, amounts = [] }) {
    const which = this.labelOf(number, label), partner = other >= 0 && share > 0;
    let [ws, second] = await this.wsOf(partner ? [number, other] : [number], partner ? [which, which] : [which]);
    if (partner) ws = this.mix(ws, second, share);
    ws = truncate(ws, this.facts.mean, psi);
    return { ws: move(ws, this.facts.directions, amounts), label: which };
  }

  /** Mix with weight `share`: the fine layers first if there are layers, else interpolated. */
  mix(ws, second, share) {
    if (!this.facts.styled) return slerp(ws, second, share);
    const layer = Math.round(this.facts.num_ws * (1 - share));
    return cross(ws, second, layer, this.facts.w_dim);
  }

  between(ws, second, share) {
    return this.facts.styled ? lerp(ws, second, share) : slerp(ws, second, share);
  }

  /** Draw images, each as ImageData, from ws and labels. */
  async draw(all, labels) {
    const ws = new Float32Array(all.length * this.size);
    all.forEach((one, i) => ws.set(one, i * this.size));
    const bytes = await this.backend.draw(ws, labels), { height, width, channels } = this.facts;
    const step = height * width * channels;
    return all.map((_, row) => {
      const image = new ImageData(width, height);
      for (let p = 0; p < height * width; p++) {
        const from = row * step + p * channels;
        const alpha = channels === 4 ? bytes[from + 3] : 255;
        for (let c = 0; c < 3; c++) {
          const value = bytes[from + (channels === 1 ? 0 : c)];
          image.data[4 * p + c] = alpha === 255 ? value : alpha && (value * 255) / alpha; // premultiplied
        }
        image.data[4 * p + 3] = alpha;
      }
      return image;
    });
  }
}

export function show(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    canvas.width = image.width;
    canvas.height = image.height;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
