// @ts-check
// The page: the selected image and its controls, the gallery, and the URL that stores the state.

import { Explorer, show } from "./explorer.js";
import { Gallery } from "./gallery.js";
import { truncate, move } from "./latents.js";

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const LIMIT = 4294967296, WAY_MS = 2600;
const anyNumber = () => Math.floor(Math.random() * LIMIT);

const facts = await (await fetch("generator.json")).json();
const { connect } = await import(facts.backend === "onnx" ? "./onnx.js" : "./server.js");

const state = { number: 1, label: -1, psi: 1, other: -1, share: 0, amounts: facts.directions.map(() => 0) };
/** @type {{ to: number, since: number, label: number } | null} The walk under way: where it leads, when it began. */
let walking = null;
/** @type {Explorer} */
let explorer;
/** @type {Gallery} */
let gallery;
/** @type {{ ws: Float32Array, label: number }} */
let lastWs;
let drawing = false, again = false, finished = Promise.resolve();

function failed(error) {
  at("trouble").textContent = error.message === "Failed to fetch" ? "The server does not respond." : error.message;
  at("trouble").hidden = false;
}

/** Draw the selected image; requests that arrive while one is drawn are merged into one. */
async function draw() {
  again = true;
  if (drawing) return;
  drawing = true;
  let done = () => {};
  finished = new Promise((resolve) => { done = () => resolve(); });
  while (again) {
    again = false;
    try {
      const point = walking ? await step(walking) : await explorer.wsOfPicture({ ...state });
      const [image] = await explorer.draw([point.ws], [point.label]);
      lastWs = point;
      show(at("picture"), image);
      document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
      at("trouble").hidden = true;
    } catch (error) {
      failed(error);
      stopWalk();
    }
  }
  drawing = false;
  done();
}

/**
 * The current point of a walk; its speed does not depend on the time per frame. A click may stop
 * the walk or start another one during an await: only `walk` is read afterwards.
 * @param {{ to: number, since: number, label: number }} walk
 */
async function step(walk) {
  if (performance.now() - walk.since >= WAY_MS) {
    state.number = walk.to;
    walk = walking = { to: anyNumber(), since: performance.now(), label: explorer.labelOf(state.number, state.label) };
    tell();
  }
  const { label } = walk;
  const [from, to] = await explorer.wsOf([state.number, walk.to], [label, label]);
  const between = explorer.between(from, to, Math.min(1, (performance.now() - walk.since) / WAY_MS));
  return { ws: move(truncate(between, facts.mean, state.psi), facts.directions, state.amounts), label };
}

function frame() {
  if (!walking) return;
  draw().then(() => requestAnimationFrame(frame));
}

function startWalk() {
  walking = { to: anyNumber(), since: performance.now(), label: explorer.labelOf(state.number, state.label) };
  at("walk").setAttribute("aria-pressed", "true");
  at("walk").textContent = "Stop";
  frame();
}

function stopWalk() {
  walking = null;
  at("walk").setAttribute("aria-pressed", "false");
  at("walk").textContent = "Walk";
}

/** Update the fields, the caption and the URL. */
function tell() {
  at("number").value = state.number;
  at("psi").value = state.psi;
  at("psi-value").textContent = state.psi.toFixed(2);
  const name = facts.labels[explorer.labelOf(state.number, state.label)];
  at("caption").textContent = `No. ${state.number}${name ? `, ${name}` : ""}`;
  at("picture").setAttribute("aria-label", `generated image ${state.number}`);
  if (facts.labels.length) at("label").value = state.label;
  if (facts.styled) {
    const layers = Math.round(facts.num_ws * state.share);
    at("share-value").textContent = `${layers} of ${facts.num_ws}`;
  } else at("share-value").textContent = `${Math.round(state.share * 100)} %`;
  facts.directions.forEach((_, i) => {
    at(`direction-${i}`).value = state.amounts[i];
    at(`amount-${i}`).textContent = (state.amounts[i] / facts.reach).toFixed(1);
  });
  history.replaceState(null, "", `#n=${state.number}&psi=${state.psi}${state.label >= 0 ? `&label=${state.label}` : ""}`);
  gallery?.mark(state.number);
}

function change(values) {
  Object.assign(state, values);
  at("real").hidden = true;
  tell();
  draw();
}

function choose(number) {
  stopWalk();
  change({ number });
  if (matchMedia("(max-width: 760px)").matches) at("stage").scrollIntoView({ behavior: "smooth" });
}

function numberFrom(field) {
  const value = Math.floor(Number(field.value));
  return Number.isFinite(value) && value >= 0 && value < LIMIT ? value : state.number;
}

async function chooseOther(number) {
  state.other = number;
  at("other-number").value = number;
  if (state.share === 0) { state.share = 0.5; at("share").value = 0.5; }
  change({});
  const made = await explorer.wsOfPicture({ number, label: explorer.labelOf(state.number, state.label), psi: state.psi });
  const [image] = await explorer.draw([made.ws], [made.label]);
  if (state.other === number) show(at("other"), image); // another one may have been chosen since
}

async function nearest() {
  at("near").disabled = true;
  at("near").textContent = "Searching…";
  try {
    await finished;
    const found = await explorer.backend.nearest(lastWs.ws, lastWs.label);
    at("real-images").replaceChildren(...found.map(({ image, distance }) => {
      const figure = document.createElement("figure"), picture = new Image(), caption = document.createElement("figcaption");
      picture.src = image;
      picture.alt = "training image";
      caption.textContent = distance.toFixed(3);
      figure.append(picture, caption);
      return figure;
    }));
    at("real").hidden = false;
    at("real").scrollIntoView({ block: "nearest", behavior: "smooth" });
  } catch (error) {
    failed(error);
  }
  at("near").disabled = false;
  at("near").textContent = "Nearest training images";
}

function save() {
  at("picture").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${facts.name}-${state.number}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

function furnish() {
  document.documentElement.classList.toggle("transparent", facts.channels === 4);
  document.title = at("title").textContent = facts.title;
  at("about").textContent = facts.about;
  document.documentElement.style.setProperty("--aspect", `${facts.width} / ${facts.height}`);
  for (const id of ["picture", "other"]) at(id).style.aspectRatio = `${facts.width} / ${facts.height}`;
  at("near").hidden = !facts.nearest;
  at("labels").hidden = !facts.labels.length;
  at("label").append(new Option("cycle through all", "-1"), ...facts.labels.map((name, i) => new Option(name, String(i))));
  at("share-name").textContent = facts.styled ? "Fine layers from it" : "Mix weight";
  facts.directions.forEach((_, i) => {
    const label = document.createElement("label");
    label.className = "slider";
    label.textContent = `Direction ${i + 1} `;
    const value = document.createElement("output"), slider = document.createElement("input");
    value.id = `amount-${i}`;
    Object.assign(slider, { id: `direction-${i}`, type: "range", min: -4 * facts.reach, max: 4 * facts.reach, step: "any", value: 0 });
    slider.oninput = () => { state.amounts[i] = Number(slider.value); change({}); };
    label.append(value, slider);
    at("directions").append(label);
  });
  at("another").onclick = () => { const number = anyNumber(); choose(number); gallery.restart((number + 1) % LIMIT); };
  at("walk").onclick = () => {
    if (!walking) return startWalk();
    stopWalk();
    draw();
  };
  at("save").onclick = save;
  at("near").onclick = nearest;
  at("number").onchange = () => choose(numberFrom(at("number")));
  at("label").onchange = () => { stopWalk(); change({ label: Number(at("label").value) }); gallery.refresh(); };
  at("psi").oninput = () => change({ psi: Number(at("psi").value) });
  at("psi").onchange = () => gallery.refresh();
  at("other-number").onchange = () => chooseOther(numberFrom(at("other-number")));
  at("other-another").onclick = () => chooseOther(anyNumber());
  at("share").oninput = () => {
    if (state.other < 0) return void chooseOther(anyNumber());
    change({ share: Number(at("share").value) });
  };
  at("mixing").ontoggle = () => (at("mixing").open ? state.other < 0 && chooseOther(anyNumber()) : change({ share: 0, other: -1 }));
  at("still").onclick = () => change({ amounts: facts.directions.map(() => 0) });
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const number = Number(asked.get("n") ?? NaN), psi = Number(asked.get("psi") ?? NaN), label = Number(asked.get("label") ?? -1);
  if (Number.isInteger(number) && number >= 0 && number < LIMIT) state.number = number;
  if (psi >= 0 && psi <= 1.2) state.psi = psi;
  else state.psi = facts.psi;
  state.label = facts.labels[label] === undefined ? -1 : label;
}

try {
  furnish();
  at("about").textContent = "Loading the generator …";
  explorer = new Explorer(facts, await connect(facts));
  at("about").textContent = facts.about;
  readAddress();
  gallery = new Gallery(explorer, at("gallery"), at("more"), choose, {
    first: state.number + 1, now: () => ({ psi: state.psi, label: state.label }), failed,
    idle: () => (walking ? Promise.resolve() : finished),
  });
  tell();
  await draw();
  Object.assign(window, { explorer }); // for tests and debugging
  window.addEventListener("hashchange", () => { readAddress(); tell(); draw(); gallery.refresh(); });
} catch (error) {
  at("about").textContent = facts.about;
  failed(error);
}
