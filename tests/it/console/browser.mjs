// The browser that the scripts beside this one look with: node SCRIPT DRIVER BROWSER ADDRESS PICTURES. A script ends with 1 at the first
// thing that is not as it should be, and leaves a picture of each page.

import assert from "node:assert/strict";
import { dirname, join } from "node:path";

const [driver, browser, address, pictures] = process.argv.slice(2);
const { chromium } = await import(driver);

const app = await chromium.launch({
  executablePath: browser,
  // Names of other sites, which stand for a resolver in their hands.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP evil.test 127.0.0.1, MAP rebind.test 127.0.0.1"],
  // Fonts lie beside the libraries, and Korean has none elsewhere.
  env: { ...process.env, LD_LIBRARY_PATH: process.env.BROWSER_LIBRARIES, XDG_DATA_HOME: join(dirname(browser), "../../share") },
});

const faults = [];

/** Where the console is. */
export { address };

/** Takes the steps, in which no page may complain of anything or ask anybody else, and lets the browser go whatever comes of them. */
export async function look(steps) {
  try {
    await steps();
    assert.deepEqual(faults, []);
  } finally {
    await app.close();
  }
}

/** A browser of somebody who comes for the first time. */
async function visit(options) {
  const context = await app.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("request", (request) => new URL(request.url()).origin === address || faults.push(`asks ${request.url()}`));
  return page;
}

/** A page of another site, which may try what it likes. */
export const stranger = async () => (await app.newContext()).newPage();

/** Somebody at a desk, in English and by day. */
export const atDesk = (options) => visit({ locale: "en", viewport: { width: 1280, height: 800 }, colorScheme: "light", ...options });

/** Somebody with a phone, in Korean and in the dark. */
export const onPhone = () => visit({ locale: "ko-KR", viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, colorScheme: "dark" });

export const picture = (page, name) => page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });

/** What is shown is not wider than the screen. */
export async function fits(page, name) {
  const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.screen.width]);
  assert.ok(wide <= screen, `${name} is ${wide} wide on a screen of ${screen}`);
}
