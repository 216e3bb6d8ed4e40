// A node's admin page: it asks for the token, shows what the node does while it does it, asks nobody else, and takes
// nothing that a peer has chosen for markup.

import { enter, pale, unnamed } from "./support/admin.mjs";
import { collisions, expect, overflowing, shot, visit, withBrowser } from "./support/browser.mjs";

const url = `http://${process.env.ADMIN}/`;
const LOOKS_MS = 9_000;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const text = (page, selector) => page.locator(selector).innerText();

await withBrowser("admin", async (browser) => {
  const sights = [];
  for (const [width, dark] of [[1280, false], [1280, true], [400, false], [400, true]]) {
    const where = `admin-${width}-${dark ? "dark" : "light"}`;
    const sight = await visit(browser, url, { width, dark });
    const { page } = sight;
    expect(await page.isVisible("#login") && !(await page.isVisible("#board")), `${where}: the token is asked for first`);
    await shot(page, `${where}-login`);
    await enter(page, process.env.TOKEN);
    await page.waitForSelector("#board:not([hidden])");
    sights.push({ where, sight, page, dark, first: await text(page, "#shards") });
  }
  await pause(LOOKS_MS);
  for (const { where, sight, page, dark, first } of sights) {
    await page.waitForFunction(() => document.querySelectorAll("#curves path.line").length > 0);
    await shot(page, where);
    expect(await text(page, "#state") === "Ready", `${where}: ${await text(page, "#state")}`);
    const rows = await page.locator("#shards tbody tr").count();
    expect(rows === 2, `${where}: ${rows} shards`);
    const cards = await page.locator("[data-of=cluster]").count();
    expect(cards === 3 && await page.locator("[data-of=cluster]:visible").count() === 0, `${where}: a node alone has no cluster`);
    const curve = () => page.getAttribute("#throughput path.s1", "d");
    const seen = [await text(page, "#shards"), await curve()];
    expect(seen[0] !== first, `${where}: the shards do not move`);
    await pause(2_500);
    expect((await curve()) !== seen[1], `${where}: the curve does not move`);
    for (const chart of ["throughput", "busy", "curves", "overtime"]) {
      const drawn = await page.getAttribute(`#${chart} path.line`, "d");
      expect(drawn?.includes("L"), `${where}: nothing is drawn in ${chart}`);
    }
    const talkers = await page.locator("#by-stanzas tbody th").allInnerTexts();
    expect(talkers[0]?.startsWith("alice@chat.example/<img src=x onerror=alert(1)>"), `${where}: ${talkers}`);
    expect((await page.locator("#by-bytes tbody th").first().innerText()).startsWith("carol@"), `${where}: carol sends most bytes`);
    expect(await page.locator("#board img").count() === 0, `${where}: a resource became an image`);
    expect((await text(page, "#certificates")).includes("chat.example"), `${where}: no certificate`);
    expect((await text(page, "#latency")).includes("whole way"), `${where}: no latency`);
    for (const faults of [await overflowing(page), await collisions(page), await pale(page), await unnamed(page)]) {
      expect(faults.length === 0, `${where}:\n  ${faults.join("\n  ")}`);
    }
    const lightness = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0]);
    expect(dark ? lightness < 60 : lightness > 200, `${where}: the page's colour is ${lightness}`);
    expect(sight.complaints.length === 0, `${where}: ${sight.complaints.join("; ")}`);
    expect(sight.requests.every((it) => it.startsWith(url)), `${where}: ${sight.requests}`);
    const kept = await page.evaluate(() => [document.cookie, localStorage.length, sessionStorage.length, location.href]);
    expect(kept.join() === ["", 0, 1, url].join(), `${where}: kept: ${kept}`);
  }

  // Another part of the way; a pause; a token that is forgotten; one that is wrong; what a mistake in our code could do.
  const { page, sight } = sights[0];
  await page.selectOption("#stage", "write");
  await page.waitForFunction(() => document.querySelector("#overtime-sub").textContent.includes("write"));
  await page.click("#pause");
  expect(await page.getAttribute("#pause", "aria-pressed") === "true", "it is paused");
  await pause(500);
  const asked = sight.requests.length;
  await pause(3_000);
  expect(sight.requests.length === asked, "a page that is paused asks for nothing");
  await page.click("#leave");
  expect(await page.isVisible("#login"), "without a token there is nothing to see");
  expect(await page.evaluate(() => sessionStorage.length) === 0, "a forgotten token is gone");
  expect(sight.complaints.length === 0, sight.complaints.join("; "));
  await enter(page, "00ff");
  await page.waitForFunction(() => document.querySelector("#fault").textContent.includes("not the token"));
  await enter(page, "no token");
  expect((await text(page, "#fault")).includes("digits"), "what cannot be a token is told so");
  const refused = await page.evaluate(() => {
    try {
      document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='globalThis.broken = true'>");
      return "markup was taken";
    } catch (error) {
      return error.name;
    }
  });
  expect(refused === "TypeError", `Trusted Types: ${refused}`);
  await Promise.all(sights.map((one) => one.sight.close()));
});
