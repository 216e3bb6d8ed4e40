// A Chromium without a window, and what every page of the project must hold: no errors, no outside assets, nothing that
// runs out of the page, in light and dark, on a desk and on a telephone.
//
// Environment (set by run.py): PACKAGES folder with node_modules, CHROMIUM its binary, SHOTS folder for screenshots.

import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.env.PACKAGES, "package.json"))("playwright-core");

const WAIT_MS = 15_000;
const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--force-color-profile=srgb",
];

export class Failed extends Error {}

export function expect(isSo, words) {
  if (!isSo) throw new Failed(words);
}

/** Runs `body(browser)` with a fresh profile; the exit status tells how it ended. */
export async function withBrowser(name, body) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: ARGUMENTS,
    timeout: 60_000,
  });
  try {
    await body(browser);
    console.log(`ok ${name}`);
  } catch (error) {
    console.error(`FAILED ${name}: ${error instanceof Failed ? error.message : error.stack}`);
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

/**
 * Opens `url` in a context of its own. Gives the page, and lists that go on filling: `complaints` (console errors and
 * warnings, exceptions, requests that failed or were refused) and `requests` (all addresses that were asked for, the
 * page's own among them). A request that does not begin with one of `allowed` is not sent.
 */
export async function visit(browser, url, { width = 1280, height = 900, dark = false, media = "screen",
                                            allowed = [url], context: options = {} } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: dark ? "dark" : "light",
    reducedMotion: "reduce",
    ...options,
  });
  context.setDefaultTimeout(WAIT_MS);
  const page = await context.newPage();
  const complaints = [];
  const requests = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("response", (answer) => {
    if (answer.status() >= 400) complaints.push(`${answer.status()} for ${answer.url()}`);
  });
  await page.route("**/*", (route) => {
    const asked = route.request().url();
    requests.push(asked);
    if (allowed.some((begin) => asked.startsWith(begin))) return route.continue();
    complaints.push(`asked for ${asked}`);
    return route.abort();
  });
  await page.emulateMedia({ media, colorScheme: dark ? "dark" : "light" });
  await page.goto(url);
  return { page, complaints, requests, close: () => context.close() };
}

/** What reaches beyond the page's width, or out of the drawing it is in; what scrolls in a box of its own may. */
export function overflowing(page) {
  return page.evaluate(() => {
    const name = (it) => `<${it.tagName.toLowerCase()} class="${it.getAttribute("class") ?? ""}"> `
      + (it.textContent ?? "").trim().slice(0, 40);
    const scrolls = (it) => {
      for (let at = it; at !== null && at !== document.body; at = at.parentElement) {
        if (["auto", "scroll", "hidden"].includes(getComputedStyle(at).overflowX)) return true;
      }
      return false;
    };
    const faults = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) {
      faults.push(`the page is ${document.documentElement.scrollWidth} wide in a window of ${width}`);
    }
    for (const it of document.body.querySelectorAll("*")) {
      const box = it.getBoundingClientRect();
      if (box.width === 0 || box.height === 0) continue;
      if (it.ownerSVGElement !== null && it.ownerSVGElement !== undefined) {
        const paper = it.ownerSVGElement.getBoundingClientRect();
        const isOut = box.left < paper.left - 1 || box.right > paper.right + 1
          || box.top < paper.top - 1 || box.bottom > paper.bottom + 1;
        if (isOut && it.tagName === "text") faults.push(`out of its drawing: ${name(it)}`);
      } else if (box.right > width + 1 && !scrolls(it)) {
        faults.push(`beyond the page: ${name(it)}`);
      }
    }
    return faults;
  });
}

/** Texts of drawings that lie on one another: pairs that nobody can read. */
export function collisions(page) {
  return page.evaluate(() => {
    const faults = [];
    for (const drawing of document.querySelectorAll("svg")) {
      const texts = [...drawing.querySelectorAll("text")].map((it) => [it, it.getBoundingClientRect()]);
      texts.forEach(([one, a], at) => {
        for (const [other, b] of texts.slice(at + 1)) {
          const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
          const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
          if (across > 1 && down > 2) faults.push(`"${one.textContent}" lies on "${other.textContent}"`);
        }
      });
    }
    return faults;
  });
}

/** The whole page as a picture, where the run was told a folder for them. */
export async function shot(page, name) {
  if (process.env.SHOTS) await page.screenshot({ path: join(process.env.SHOTS, `${name}.png`), fullPage: true });
}
