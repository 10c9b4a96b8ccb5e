// @ts-check
// The page: what is shown, what is selected, what is decided.

import { Grid } from "./grid.js";
import { Images, KEEP, NONE, REJECT } from "./images.js";
import { Thumbnails, ask } from "./server.js";
import { Viewer } from "./viewer.js";
import { SORTS } from "./views.js";

const NAMES = ["undo", "keep", "reject"];

/** @returns {any} */
const $ = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");
const imageNoun = (number) => (number === 1 ? "image" : "images");

let images, header, columns, grid, thumbnails, viewer;
let groups = [], cursor = 0, anchor = 0;
let selected = new Set();
const history = [];
let saving = Promise.resolve(), unsaved = 0;

function showCounts() {
  for (const [name, number] of Object.entries(images.counts())) $(name).textContent = count(number);
}

const isRejected = (id) => images.isRejected(id);

function note(text) {
  $("note").textContent = text;
  $("note").hidden = !text;
}

// --- what is shown

const FILTERS = {
  all: ["all images", () => true],
  kept: ["kept", (id) => !isRejected(id)],
  rejected: ["rejected", isRejected],
  decided: ["decided by you", (id) => columns.state[id] !== NONE],
};

function arrange() {
  const sort = SORTS[$("sort").value], filter = $("filter").value, reversed = $("turn").textContent === "↑", ids = [];
  const pass = FILTERS[filter]?.[1] || ((id) => columns.reason[id] === +filter);
  for (let id = 0; id < header.count; id++) if (pass(id)) ids.push(id);
  groups = sort.make(ids, columns, header, reversed !== !!sort.reversed).filter((group) => group.ids.length);
  grid.show(groups);
  $("empty")?.remove();
  if (!groups.length) $("grid").insertAdjacentHTML("beforeend", '<p id="empty" class="soft">No image matches.</p>');
  moveTo(0, false);
}

function draw(tile, id, isNew) {
  const [, why, mark] = tile.children, rejected = isRejected(id), decided = columns.state[id] !== NONE;
  tile.classList.toggle("rejected", rejected);
  tile.classList.toggle("by-you", decided);
  tile.classList.toggle("selected", selected.size > 1 && selected.has(id));
  tile.classList.toggle("cursor", tile.position === cursor);
  tile.setAttribute("aria-selected", selected.has(id));
  tile.setAttribute("aria-label", `image ${id + 1}, ${rejected ? `rejected: ${images.why(id)}` : "kept"}`);
  why.textContent = rejected ? images.why(id) : "";
  mark.textContent = rejected ? "✕" : "✓";
  if (!isNew) return;
  const [red, green, blue] = columns.color.subarray(3 * id, 3 * id + 3);
  tile.style.backgroundColor = `rgb(${red} ${green} ${blue})`; // until the thumbnail is there
}

function drawHeader(element, group) {
  const kept = group.ids.reduce((sum, id) => sum + +!isRejected(id), 0);
  if (!element.firstChild) {
    const title = document.createElement("b"), about = document.createElement("span");
    title.textContent = title.title = group.title;
    const unwanted = group.pair ? group.ids.slice(1) : group.ids; // of near duplicates, all but the largest
    const reject = button(group.pair ? "Reject the copies" : "Reject all", "bad", () => decideGroup(group, unwanted, REJECT));
    element.append(title, about, reject, button("Keep all", "good", () => decideGroup(group, group.ids, KEEP)));
  }
  element.children[1].textContent = `${count(group.ids.length)} ${imageNoun(group.ids.length)}, ${count(kept)} kept${group.note ? `; ${group.note}` : ""}`;
}

function button(text, kind, action) {
  const made = document.createElement("button");
  made.textContent = text;
  made.className = kind;
  made.onclick = () => { action(); $("grid").focus(); };
  return made;
}

// --- the cursor and the selection

function moveTo(position, extend) {
  const last = grid.ids.length - 1;
  if (last < 0) { selected = new Set(); return void showCurrent(); }
  cursor = Math.max(0, Math.min(last, position));
  if (!extend) anchor = cursor;
  selected = new Set(grid.ids.subarray(Math.min(anchor, cursor), Math.max(anchor, cursor) + 1));
  grid.reveal(cursor);
  grid.render();
  changed();
}

function changed() {
  grid.refresh();
  $("grid").setAttribute("aria-activedescendant", `tile-${cursor}`);
  showCurrent();
}

function showCurrent() {
  const id = grid.ids[cursor], none = !selected.size;
  for (const name of ["reject", "keep", "clear", "similar", "enlarge"]) $(name).disabled = none;
  $("undo").disabled = !history.length;
  if (none) return void ($("current").textContent = "");
  const about = [`${columns.width[id]} × ${columns.height[id]} px`, `sharpness ${columns.sharpness[id].toFixed(0)}`];
  if (!Number.isNaN(columns.score[id])) about.push(`off-topic ${columns.score[id].toFixed(1)}`);
  if (header.words.label[columns.label[id]]) about.push(header.words.label[columns.label[id]]);
  if (isRejected(id)) about.push(images.why(id));
  $("current").textContent = (selected.size > 1 ? `${count(selected.size)} selected; ` : "") + about.join(" · ");
}

// --- decisions

function decideGroup(group, ids, state) {
  decide(ids, state, group.pair ? "near duplicate" : `one ${$("sort").value} of ${group.ids.length} ${imageNoun(group.ids.length)}`);
}

function decideSelected(state) {
  const single = selected.size === 1;
  decide([...selected], state, single ? "" : `${selected.size} images at once`);
  if (single && state !== NONE && !viewer.isOpen) moveTo(cursor + 1, false);
}

function decide(all, state, reason) {
  const ids = all.filter((id) => columns.state[id] !== state && !(state === KEEP && images.isLocked(id)));
  const locked = state === KEEP ? all.filter((id) => images.isLocked(id)).length : 0;
  note(locked ? `${count(locked)} of these images cannot be kept: their licence or a missing class label excludes them.` : "");
  if (!ids.length) return;
  const change = { ids, before: ids.map((id) => columns.state[id]) };
  history.push(change);
  apply(ids, ids.map(() => state), reason, () => history.splice(history.indexOf(change), 1));
}

function undo() {
  const change = history.pop();
  if (change) apply(change.ids, change.before, "undone", () => history.push(change));
}

/** Set the states at once, and save them; if that fails, set them back. */
function apply(ids, states, reason, failed) {
  const before = ids.map((id) => columns.state[id]), body = { reason };
  ids.forEach((id, i) => {
    columns.state[id] = states[i];
    (body[NAMES[states[i]]] ||= []).push(id);
  });
  unsaved++;
  $("saved").textContent = "saving …";
  saving = saving.then(() => ask("decisions", JSON.stringify(body))).then(
    () => { if (!--unsaved) $("saved").textContent = `saved ${new Date().toLocaleTimeString()}`; },
    (error) => {
      unsaved--;
      ids.forEach((id, i) => { columns.state[id] = before[i]; });
      failed();
      note(`Not saved: ${error.message}`);
      $("saved").textContent = "not saved";
      shown();
    },
  );
  shown();
}

function shown() {
  showCounts();
  changed();
  if (viewer.isOpen) view();
}

// --- similar images, and the viewer

async function sortBySimilarity() {
  const id = grid.ids[cursor];
  try {
    columns.similar = new Float32Array(await (await ask(`similar/${id}`)).arrayBuffer());
  } catch (error) {
    return note(error.message);
  }
  $("sort").querySelector("[value=similar]").disabled = false;
  $("sort").value = "similar";
  $("filter").value = "all";
  $("turn").textContent = "↓";
  arrange();
}

const view = () => viewer.show(grid.ids[cursor]).catch((error) => note(error.message));

function details(id, about) {
  const { reason, score } = columns;
  return {
    Outcome: isRejected(id) ? `rejected: ${images.why(id)}` : "kept",
    Limits: reason[id] === header.kept ? "pass" : `${images.reasonName(reason[id])}: ${about.detail}`,
    Title: about.title, Labels: about.labels.join(", "),
    Size: `${columns.width[id]} × ${columns.height[id]} px, ${about.format}, ${count(about.bytes)} bytes`,
    Sharpness: columns.sharpness[id].toFixed(1), "Off-topic score": Number.isNaN(score[id]) ? "" : score[id].toFixed(2),
    Licence: about.license, Attribution: about.attribution, Page: about.page, URL: about.url, Key: about.key,
  };
}

// --- keys and pointer

const MOVES = {
  ArrowLeft: () => cursor - 1, ArrowRight: () => cursor + 1,
  ArrowUp: () => grid.vertical(cursor, -1), ArrowDown: () => grid.vertical(cursor, 1),
  PageUp: () => grid.page(cursor, -1), PageDown: () => grid.page(cursor, 1),
  Home: () => 0, End: () => grid.ids.length - 1,
  "[": () => groups[Math.max(0, grid.groupOf(cursor) - 1)].start,
  "]": () => groups[Math.min(groups.length - 1, grid.groupOf(cursor) + 1)].start,
};
const KEYS = {
  x: () => decideSelected(REJECT), k: () => decideSelected(KEEP), c: () => decideSelected(NONE), u: undo,
  s: sortBySimilarity, " ": () => (viewer.isOpen ? viewer.close() : view()), g: selectGroup,
  "?": () => ($("help").open ? $("help").close() : $("help").showModal()),
  Escape: () => moveTo(cursor, false),
};
KEYS.Enter = KEYS[" "];

function selectGroup() {
  const group = groups[grid.groupOf(cursor)];
  selected = new Set(group.ids);
  anchor = group.start;
  changed();
}

function pressed(event) {
  const inField = event.target.closest("select, input"), onButton = event.target.closest("button");
  if (event.altKey || (inField && event.key.length > 1) || (onButton && [" ", "Enter"].includes(event.key))) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key !== "a" || !grid.ids.length) return;
    selected = new Set(grid.ids);
    changed();
  } else if (event.key in MOVES && grid.ids.length && !$("help").open) {
    moveTo(MOVES[event.key](), event.shiftKey);
    if ("[]".includes(event.key)) grid.revealGroup(cursor);
    if (viewer.isOpen) view();
  } else if (KEYS[event.key] && !(event.key === "Escape" && document.querySelector("dialog[open]"))) {
    if (event.key === "?" || event.key === "u" || selected.size) KEYS[event.key]();
  } else return;
  event.preventDefault();
}

function clicked(event) {
  const tile = event.target.closest(".tile");
  if (!tile) return;
  if (event.ctrlKey || event.metaKey) {
    cursor = anchor = tile.position;
    const id = grid.ids[cursor];
    if (!selected.delete(id)) selected.add(id);
    changed();
  } else moveTo(tile.position, event.shiftKey);
}

/** Decisions of other windows. */
async function synchronize() {
  if (document.hidden || unsaved) return;
  const states = new Uint8Array(await (await ask("states")).arrayBuffer());
  if (unsaved) return;
  columns.state.set(states);
  shown();
}

async function start() {
  images = await Images.load();
  ({ header, columns } = images);
  document.title = `${header.name}: curate`;
  $("name").textContent = $("name").title = header.name;
  note(header.notes.join(" "));
  for (const [name, { label }] of Object.entries(SORTS)) $("sort").add(new Option(label, name));
  $("sort").querySelector("[value=similar]").disabled = true;
  for (const [name, [label]] of Object.entries(FILTERS)) $("filter").add(new Option(label, name));
  const reasons = new Set(columns.reason);
  header.reasons.forEach((_, i) => reasons.has(i) && $("filter").add(new Option(`limits: ${images.reasonName(i)}`, String(i))));
  thumbnails = new Thumbnails(() => grid.fill(), (error) => note(error.message));
  const content = { draw, header: drawHeader, want: (ids) => thumbnails.want(ids), picture: (id) => thumbnails.get(id) };
  grid = new Grid($("grid"), $("rows"), content);
  if (innerWidth < 760) grid.size = 112;
  for (const name of ["sort", "filter"]) $(name).onchange = () => { arrange(); $("grid").focus(); };
  $("turn").onclick = () => { $("turn").textContent = $("turn").textContent === "↓" ? "↑" : "↓"; arrange(); };
  $("size").oninput = () => { grid.size = +$("size").value; grid.layout(); grid.reveal(cursor); };
  const actions = { reject: "x", keep: "k", clear: "c", undo: "u", similar: "s", enlarge: " ", "help-button": "?" };
  for (const [name, key] of Object.entries(actions)) $(name).onclick = () => { KEYS[key](); if (!document.querySelector("dialog[open]")) $("grid").focus(); };
  $("grid").addEventListener("click", clicked);
  $("grid").addEventListener("dblclick", (event) => event.target.closest(".tile") && view());
  viewer = new Viewer($("viewer"), $("picture"), $("details"), details);
  $("help").addEventListener("click", (event) => event.target === $("help") && $("help").close());
  document.addEventListener("keydown", pressed);
  document.addEventListener("visibilitychange", () => synchronize().catch((error) => note(error.message)));
  window.addEventListener("beforeunload", (event) => unsaved && event.preventDefault());
  showCounts();
  arrange();
  $("grid").focus();
  document.body.dataset.ready = "yes";
}

start().catch((error) => note(error.message));
