// @ts-check
// The orders of images: sorted by a value, or in groups.

const UNKNOWN = "unknown";
const collator = new Intl.Collator(undefined, { numeric: true });

/** Sorts by name: { label, reversed, make(ids, columns, header) → groups }. */
export const SORTS = {
  cluster: { label: "clusters", make: clusters },
  pairs: { label: "near duplicates", make: pairs },
  order: { label: "order of download", make: by((_, id) => id) },
  score: { label: "off-topic score", reversed: true, make: by(({ score }, id) => score[id]) },
  sharpness: { label: "sharpness", make: by(({ sharpness }, id) => sharpness[id]) },
  size: { label: "size", make: by(({ width, height }, id) => width[id] * height[id]) },
  hue: { label: "colour", make: by(({ hue }, id) => hue[id]) },
  page: { label: "page", make: words("page") },
  label: { label: "label", make: words("label") },
  similar: { label: "similarity to an image", reversed: true, make: by(({ similar }, id) => similar[id]) },
};

/** Order by a number; images without it come last. */
function by(value) {
  return (ids, columns, _, reversed) => {
    const keys = new Float64Array(columns.width.length);
    for (const id of ids) {
      const key = reversed ? -value(columns, id) : value(columns, id);
      keys[id] = Number.isNaN(key) ? Infinity : key;
    }
    return [{ ids: ids.slice().sort((a, b) => keys[a] - keys[b] || a - b) }];
  };
}

/** Groups by a number; the images of a group keep their order. */
function grouped(ids, column) {
  const groups = new Map();
  for (const id of ids) {
    if (!groups.has(column[id])) groups.set(column[id], []);
    groups.get(column[id]).push(id);
  }
  return groups;
}

function words(name) {
  return (ids, columns, header, reversed) => {
    const found = [...grouped(ids, columns[name])].map(([number, members]) => ({ title: header.words[name][number] || UNKNOWN, ids: members }));
    found.sort((a, b) => collator.compare(a.title, b.title));
    return reversed ? found.reverse() : found;
  };
}

function clusters(ids, columns, header, reversed) {
  const [{ ids: sorted }] = SORTS.score.make(ids, columns, header, true);
  const found = [...grouped(sorted, columns.cluster)].sort(([a], [b]) => a - b);
  if (reversed) found.reverse();
  return found.map(([number, members]) => ({ title: `Cluster ${number + 1}`, note: `mean off-topic score ${mean(members, columns.score)}`, ids: members }));
}

function mean(ids, column) {
  const known = ids.map((id) => column[id]).filter((value) => !Number.isNaN(value));
  return known.length ? (known.reduce((sum, value) => sum + value, 0) / known.length).toFixed(1) : UNKNOWN;
}

/** Each image with its copies, the closest pairs first. */
function pairs(ids, columns, _, reversed) {
  const { copy_of, bits, detail } = columns, shown = new Set(ids), groups = new Map();
  for (const id of ids) {
    const first = copy_of[id];
    if (first < 0 || !shown.has(first)) continue;
    if (!groups.has(first)) groups.set(first, []);
    groups.get(first).push(id);
  }
  const found = [...groups].map(([first, copies]) => {
    copies.sort((a, b) => detail[a] - detail[b]);
    const apart = copies.map((id) => `${bits[id]} bits, ${detail[id]} of the detail`);
    return { title: copies.length > 1 ? `${copies.length} copies` : "Pair", note: apart.slice(0, 3).join("; "), pair: true, ids: [first, ...copies], apart: detail[copies[0]] + bits[copies[0]] };
  });
  found.sort((a, b) => a.apart - b.apart);
  return reversed ? found.reverse() : found;
}
