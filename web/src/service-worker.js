// SPDX-License-Identifier: Apache-2.0
/* Keeps the page, and the model and its runtime once they were used, so that all works offline. */

const FIRST = [/* kept from the start */];
const ASSETS = [/* built files */];
const CACHE = "page";

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FIRST)));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetOldAssets().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  // What comes from the Hub is kept by transformers.js.
  if (method !== "GET" || new URL(url).origin !== self.location.origin) return;
  event.respondWith(answer(event.request));
});

const isAsset = (url) => new URL(url).pathname.includes("/assets/");

/* Built files never change under their name; the rest is asked for first, and taken from the cache offline. */
async function answer(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request);
  if (kept && isAsset(request.url)) return kept;
  try {
    const found = await fetch(request);
    if (found.status === 200) await cache.put(request, found.clone());
    return found;
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}

async function forgetOldAssets() {
  const cache = await caches.open(CACHE);
  for (const { url } of await cache.keys()) {
    if (isAsset(url) && !ASSETS.some((name) => url.endsWith(name))) await cache.delete(url);
  }
}
