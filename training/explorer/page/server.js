// @ts-check
// The generator on the server of this page: PyTorch in training/explore.py.

async function post(path, count, labels, values) {
  const body = new ArrayBuffer(4 + 4 * count + 4 * values.length);
  new Uint32Array(body, 0, 1)[0] = count;
  new Int32Array(body, 4, count).set(labels);
  new Float32Array(body, 4 + 4 * count).set(values);
  const answer = await fetch(path, { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } });
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

export async function connect() {
  return {
    async map(latents, labels) {
      return new Float32Array(await (await post("map", labels.length, labels, latents)).arrayBuffer());
    },
    async draw(ws, labels) {
      return new Uint8Array(await (await post("draw", labels.length, labels, ws)).arrayBuffer());
    },
    async nearest(ws, label) {
      return (await post("nearest", 1, [label], ws)).json();
    },
  };
}
