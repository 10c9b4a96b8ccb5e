// @ts-check
// The generator in this browser: ONNX Runtime in a worker, so that the page stays responsive.

export async function connect(facts) {
  const worker = new Worker("onnx-worker.js", { type: "module" });
  const waiting = new Map();
  let next = 0;
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error)); else resolve(data.result);
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message || "the worker does not start"));
    waiting.clear();
  };
  const ask = (what, values, labels) => new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject });
    worker.postMessage({ id: next++, what, values, labels });
  });
  await ask("load", facts);
  return {
    map: async (latents, labels) => (facts.styled ? ask("map", latents, labels) : latents),
    draw: (ws, labels) => ask("draw", ws, labels),
  };
}
