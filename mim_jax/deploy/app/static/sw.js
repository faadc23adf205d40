// Caches the app for offline use: all files of one version, each verified by its hash, and nothing else.
importScripts("version.js");
const KEPT = `mim-${self.APP.version}`;

// A new version waits until the last page of the old one is closed: page and model always have the same version.
self.addEventListener("install", (event) => {
  const wanted = Object.entries(self.APP.files).map(
    ([name, integrity]) => new Request(name, { cache: "no-cache", integrity }),
  );
  event.waitUntil(caches.open(KEPT).then((cache) => cache.addAll(wanted)));
});

self.addEventListener("activate", (event) => {
  const clean = async () => {
    for (const name of await caches.keys()) if (name.startsWith("mim-") && name !== KEPT) await caches.delete(name);
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

self.addEventListener("fetch", (event) => {
  const { pathname } = new URL(event.request.url);
  const name = pathname.endsWith("/") ? "index.html" : pathname.split("/").pop();
  if (event.request.method !== "GET" || !(name in self.APP.files)) return;
  event.respondWith(
    caches.open(KEPT).then(async (cache) => (await cache.match(name)) ?? fetch(event.request)),
  );
});
