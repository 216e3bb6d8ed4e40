// The admin page of a node in a cluster of three: who is in it and how far away, how far messages go, and what becomes of it
// when a node is killed.

import { enter, pale, unnamed } from "./support/admin.mjs";
import { collisions, expect, overflowing, shot, visit, withBrowser } from "./support/browser.mjs";

const url = `http://${process.env.ADMIN}/`;
// Enough for two looks of the page, between which links have carried something.
const LOOKS_MS = 5_000;
const FAULT_MS = 30_000;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const text = (page, selector) => page.locator(selector).innerText();

/** The table of members, by node: heading to text. */
const members = (page) => page.evaluate(() => {
  const table = document.querySelector("#members table");
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  return Object.fromEntries([...table.tBodies[0].rows].map((row) => {
    const cells = [...row.cells].map((cell) => cell.textContent);
    return [cells[0], Object.fromEntries(heads.map((head, place) => [head, cells[place]]))];
  }));
});

await withBrowser("cluster", async (browser) => {
  const sights = [];
  for (const [width, dark] of [[1280, false], [1280, true], [400, false], [400, true]]) {
    const sight = await visit(browser, url, { width, dark });
    await enter(sight.page, process.env.TOKEN);
    await sight.page.waitForSelector("#board:not([hidden])");
    sights.push({ where: `cluster-${width}-${dark ? "dark" : "light"}`, sight, page: sight.page });
  }
  await pause(LOOKS_MS);
  for (const { where, sight, page } of sights) {
    await shot(page, where);
    expect(await text(page, "#state") === "Ready", `${where}: ${await text(page, "#state")}`);
    expect(await page.locator("[data-of=cluster]:visible").count() === 3, `${where}: the cluster is not shown`);
    expect((await text(page, "#cluster-sub")).includes("All is where it belongs"), `${where}: ${await text(page, "#cluster-sub")}`);
    const told = await members(page);
    expect(Object.keys(told).join() === "n1,n2,n3", `${where}: ${Object.keys(told)}`);
    for (const [name, node] of Object.entries(told)) {
      const words = `${where}: ${name}: ${JSON.stringify(node)}`;
      expect(node.State === "member" && node.Weight === "100" && node.Shards === "2", words);
      const share = parseFloat(node.Share);
      expect(share > 25 && share < 42, words);
      expect(/^[0-3]\.\d s$/.test(node.Lease), words);
      expect(Number(node.Settled) > 0, words);
      if (name === "n1") {
        expect(node.Health === "this node" && node.Link === "–", words);
        continue;
      }
      expect(node.Health === "alive" && node.Link === "up" && node.Reconnects === "0", words);
      expect(/^[\d.]+ (µs|ms)$/.test(node["Round trip"]), words);
      expect(/^[+−][\d.]+ (ns|µs|ms)$/.test(node.Clock), words);
      expect(/^[\d.]+ (B|KiB|MiB)$/.test(node.Queue), words);
      expect(/^[\d.]*[1-9].*\/s.*[1-9].*\/s$/.test(node["In, out"]), words);
    }
    const hops = await page.locator("#hops tbody tr").allInnerTexts();
    expect(hops.length === 5 && hops.some((row) => /^(one|two|three)\b/.test(row) && !/\b0$/.test(row.trim())), `${where}: ${hops}`);
    expect((await text(page, "#hops")).includes("on the average"), `${where}: no average`);
    expect(await page.locator("#events tbody tr").count() >= 3, `${where}: what changed is not told`);
    for (const faults of [await overflowing(page), await collisions(page), await pale(page), await unnamed(page)]) {
      expect(faults.length === 0, `${where}:\n  ${faults.join("\n  ")}`);
    }
    expect(sight.complaints.length === 0, `${where}: ${sight.complaints.join("; ")}`);
    expect(sight.requests.every((it) => it.startsWith(url)), `${where}: ${sight.requests}`);
  }

  const { page, sight } = sights[0];
  process.kill(Number(process.env.VICTIM), "SIGKILL");
  await page.waitForFunction(() => document.querySelector("#state").textContent.includes("n3 is out of reach"), null, { timeout: FAULT_MS });
  await page.waitForFunction(() => {
    const row = [...document.querySelectorAll("#members tbody tr")].find((it) => it.cells[0].textContent === "n3");
    return document.querySelector("#state").textContent === "Ready" && (!row || row.cells[5].textContent.startsWith("0"));
  }, null, { timeout: FAULT_MS });
  expect((await text(page, "#events")).includes("n3"), `it is told: ${await text(page, "#events")}`);
  await shot(page, "cluster-after");
  for (const faults of [await overflowing(page), await collisions(page), await pale(page), await unnamed(page)]) {
    expect(faults.length === 0, `after a death:\n  ${faults.join("\n  ")}`);
  }
  expect(sight.complaints.length === 0, sight.complaints.join("; "));
  await Promise.all(sights.map((one) => one.sight.close()));
});
