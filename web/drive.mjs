import { chromium } from "playwright-core";
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--headless","--no-sandbox","--disable-gpu","--disable-quic","--no-first-run","--disable-background-networking","--disable-component-update","--disable-sync"] });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
page.on("console", (m) => console.log("console", m.type(), m.text()));
page.on("pageerror", (e) => console.log("pageerror", e.message));
page.on("requestfailed", (r) => console.log("failed", r.url(), r.failure()?.errorText));
await page.goto("http://localhost:8901/");
await page.waitForSelector("#examples button");
await page.screenshot({ path: "/tmp/s0.png" });
const t = Date.now();
await page.click("#examples button >> nth=0");
for (let i = 0; i < 60; i++) { const s = await page.textContent("#progress-label"); console.log(((Date.now()-t)/1000).toFixed(1), s); if (s.startsWith("Draw") ) break; const m = await page.textContent("#messages"); if (m.includes("Error")) { console.log(m); break; } await page.waitForTimeout(1000); }
await page.screenshot({ path: "/tmp/s1.png" });
const box = await page.locator("#image-canvas").boundingBox();
const at = (x, y) => [box.x + x * box.width, box.y + y * box.height];
for (const [n, pts] of [["1", [[.3,.4],[.4,.4]]], ["2", [[.6,.6],[.65,.7]]]]) {
  await page.keyboard.press(n);
  await page.mouse.move(...at(...pts[0])); await page.mouse.down(); await page.mouse.move(...at(...pts[1]), { steps: 8 }); await page.mouse.up();
}
await page.waitForTimeout(2500);
console.log(await page.textContent("#progress-label"));
await page.screenshot({ path: "/tmp/s2.png" });
const fb = await page.locator("#features-canvas").boundingBox();
await page.mouse.click(fb.x + fb.width/2, fb.y + fb.height/2);
await page.waitForTimeout(700);
await page.screenshot({ path: "/tmp/s3.png" });
await page.setViewportSize({ width: 390, height: 844 });
await page.waitForTimeout(700);
await page.screenshot({ path: "/tmp/s4.png", fullPage: true });
await browser.close();
