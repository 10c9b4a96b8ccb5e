// @ts-check
// @ts-ignore the runtime is copied beside this file on export
import * as ort from "./ort.js";

// One thread: more need headers (COOP, COEP) that plain web hosts do not send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", import.meta.url).href };

let facts, mapping, synthesis;

async function load(given) {
  facts = given;
  synthesis = await ort.InferenceSession.create("synthesis.onnx");
  if (facts.styled) mapping = await ort.InferenceSession.create("mapping.onnx");
}

async function run(session, name, values, shape, labels) {
  const feeds = { [name]: new ort.Tensor("float32", values, shape) };
  if (session.inputNames.includes("labels")) {
    feeds.labels = new ort.Tensor("int64", BigInt64Array.from(labels, BigInt), [labels.length]);
  }
  return (await session.run(feeds))[session.outputNames[0]].data;
}

// One item at a time: the runtime's memory never shrinks, and a batch is no faster on one thread.
async function each(labels, one) {
  const parts = [];
  for (let i = 0; i < labels.length; i++) parts.push(await one(i, labels.slice(i, i + 1)));
  const joined = new parts[0].constructor(parts.reduce((sum, part) => sum + part.length, 0));
  parts.forEach((part, i) => joined.set(part, i * part.length));
  return joined;
}

function map(latents, labels) {
  const size = facts.z_dim;
  return each(labels, (i, label) => run(mapping, "z", latents.slice(i * size, (i + 1) * size), [1, size], label));
}

/** Images as bytes (n, height, width, channels), rounded as training/latent/space.py does. */
function draw(ws, labels) {
  const { num_ws, w_dim, height, width, channels } = facts, size = num_ws * w_dim, plane = height * width;
  return each(labels, async (i, label) => {
    const values = await run(synthesis, "ws", ws.slice(i * size, (i + 1) * size), [1, num_ws, w_dim], label);
    const bytes = new Uint8ClampedArray(values.length); // clamps and rounds
    for (let c = 0; c < channels; c++)
      for (let p = 0; p < plane; p++) bytes[p * channels + c] = (values[c * plane + p] + 1) * 127.5;
    return new Uint8Array(bytes.buffer);
  });
}

onmessage = async ({ data }) => {
  try {
    const result = await { load, map, draw }[data.what](data.values, data.labels);
    postMessage({ id: data.id, result });
  } catch (error) {
    postMessage({ id: data.id, error: error instanceof Error ? error.message : String(error) });
  }
};
