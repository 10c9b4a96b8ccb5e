// @ts-check
// Latents by number and interpolation: the same arithmetic as training/latent/image_numbers.py and
// interpolation.py, so that a number is the same image everywhere.

function mix(value) {
  value ^= value >>> 16;
  value = Math.imul(value, 0x85ebca6b);
  value ^= value >>> 13;
  value = Math.imul(value, 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

function uniform(start, place) {
  return (mix(start ^ mix((place + 0x9e3779b9) >>> 0)) + 0.5) / 4294967296;
}

/** The latent of an image number. `kind`: gaussian, uniform or sphere. */
export function latentsOf(number, kind, size) {
  const start = mix((number + 0x7f4a7c15) >>> 0);
  if (kind === "uniform") return Float32Array.from({ length: size }, (_, i) => uniform(start, i) * 2 - 1);
  const values = new Float64Array(size + (size % 2));
  for (let i = 0; i < size; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(uniform(start, i)));
    const angle = 2 * Math.PI * uniform(start, i + 1);
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle);
  }
  const latents = values.subarray(0, size);
  if (kind === "sphere") {
    const length = Math.hypot(...latents);
    return Float32Array.from(latents, (v) => (v * Math.sqrt(size)) / length);
  }
  return Float32Array.from(latents);
}

export function lerp(start, end, share) {
  return start.map((value, i) => value + share * (end[i] - value));
}

/** Spherical interpolation; lengths are interpolated linearly. */
export function slerp(start, end, share) {
  const lengths = [Math.hypot(...start) || 1e-12, Math.hypot(...end) || 1e-12];
  const cosine = start.reduce((sum, value, i) => sum + value * end[i], 0) / (lengths[0] * lengths[1]);
  const angle = Math.acos(Math.max(-1, Math.min(1, cosine)));
  const sine = Math.sin(angle);
  const parts = sine < 1e-4 ? [1 - share, share] : [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine];
  const length = lengths[0] + share * (lengths[1] - lengths[0]);
  return start.map((value, i) => length * ((parts[0] * value) / lengths[0] + (parts[1] * end[i]) / lengths[1]));
}

/** mean + psi · (w − mean), for every layer's w in ws. */
export function truncate(ws, mean, psi) {
  return psi === 1 ? ws : ws.map((value, i) => mean[i % mean.length] + psi * (value - mean[i % mean.length]));
}

/** Move ws along directions by amounts, in all layers. */
export function move(ws, directions, amounts) {
  const size = directions.length ? directions[0].length : 0;
  const shift = new Float32Array(size);
  amounts.forEach((amount, d) => { if (amount) for (let i = 0; i < size; i++) shift[i] += amount * directions[d][i]; });
  return amounts.some(Boolean) ? ws.map((value, i) => value + shift[i % size]) : ws;
}

/** Style mixing: the first layers of one, the others of the other. */
export function cross(coarse, fine, layer, size) {
  return coarse.map((value, i) => (i < layer * size ? value : fine[i]));
}
