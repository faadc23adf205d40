// The scoring worker: loads onnxruntime and the model, tests itself on the golden images, then scores.

let app, session, ort;

// Reads a file from the service worker's cache if it is there, and fetches it otherwise.
async function read(name) {
  const kept = "caches" in self ? await caches.match(name).catch(() => undefined) : undefined;
  const response = kept ?? (await fetch(name));
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

// Some servers send .gz files already decompressed; the first bytes show whether they did.
async function unpacked(name) {
  const bytes = await read(name);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load(settings) {
  app = settings;
  ort = await import("./ort.mjs");
  ort.env.wasm.numThreads = 1; // more threads need headers that a plain web server does not send
  ort.env.wasm.wasmBinary = await unpacked("ort.wasm.gz");
  session = await ort.InferenceSession.create(await unpacked("model.onnx.gz"), { executionProviders: ["wasm"] });
}

async function score(rgb) {
  const side = app.image_size;
  const began = performance.now();
  const found = await session.run({ image: new ort.Tensor("uint8", rgb, [side, side, 3]) });
  return {
    similarities: Array.from(found.similarities.data),
    ...Object.fromEntries(app.outputs.slice(1).map((name) => [name, found[name].data])),
    seconds: (performance.now() - began) / 1000,
  };
}

// The error of the first golden score that is off by too much, or 0; a page that errs must not decide anything.
async function seal() {
  const images = await read("golden.bin");
  const length = app.image_size ** 2 * 3;
  const found = [];
  for (const [index, expected] of app.golden.similarities.entries()) {
    const { similarities } = await score(images.slice(index * length, (index + 1) * length));
    found.push(similarities);
    const off = similarities.map((value, k) => Math.abs(value - expected[k]));
    const wrong = off.find((value, k) => !(value <= app.golden.tolerances[k]));
    if (wrong !== undefined) return { off: wrong, found };
    postMessage({ type: "checked", done: index + 1, of: app.golden.similarities.length });
  }
  return { off: 0, found };
}

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "load") {
      await load(data.app);
      const { off, found } = await seal();
      postMessage(off !== 0 ? { type: "refused", off } : { type: "ready", golden: found });
    } else {
      postMessage({ type: "scored", id: data.id, ...(await score(data.rgb)) });
    }
  } catch (error) {
    postMessage({ type: "failed", id: data.id, message: String(error?.message ?? error) });
  }
};
