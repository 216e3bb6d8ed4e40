// The load tool's report: all of it is there, it asks for nothing, and it can be read on any screen and on paper.

import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { collisions, expect, overflowing, shot, visit, withBrowser } from "./support/browser.mjs";

const SECTIONS = ["glance", "thresholds", "operations", "latency", "throughput", "errors", "faults", "server", "tool",
  "ledger", "phases", "environment", "scenario"];

const address = (run) => pathToFileURL(join(process.env.REPORTS, run, "report.html")).href;
const seen = (page, selector) => page.locator(selector).first().isVisible();

await withBrowser("report", async (browser) => {
  for (const [width, dark] of [[1280, false], [1280, true], [400, false], [400, true]]) {
    const where = `${width} wide, ${dark ? "dark" : "light"}`;
    const sight = await visit(browser, address("mixed-day"), { width, dark });
    const { page } = sight;
    for (const section of SECTIONS) {
      expect(await seen(page, `#${section}`), `${where}: no section ${section}`);
      expect((await page.locator(`#${section}`).innerText()).trim() !== "", `${where}: ${section} is empty`);
    }
    for (const part of ["#latency svg path.heat", "#latency svg path.curve.response", "#latency svg path.curve.service",
      "#throughput svg path.done", "#errors svg path.bar", "#server svg path.load", "#server svg path.fault",
      "#server svg rect.stall", "#cost data"]) {
      expect(await page.locator(part).count() > 0, `${where}: nothing is ${part}`);
    }
    // Each chart over time shows both faults and both stalls.
    const bare = await page.evaluate(() => [...document.querySelectorAll(".paper svg")]
      .filter((it) => it.querySelector(".phase") !== null)
      .filter((it) => it.querySelectorAll("path.fault").length !== 2 || it.querySelector("rect.stall") === null)
      .map((it) => it.getAttribute("aria-label")));
    expect(bare.length === 0, `${where}: without marks: ${bare.join(", ")}`);
    for (const faults of [await overflowing(page), await collisions(page)]) {
      expect(faults.length === 0, `${where}:\n  ${faults.join("\n  ")}`);
    }
    const lightness = await page.evaluate(() => {
      const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
      return (red + green + blue) / 3;
    });
    expect(dark ? lightness < 60 : lightness > 200, `${where}: the page's colour is ${lightness}`);
    expect(sight.complaints.length === 0, `${where}: ${sight.complaints.join("; ")}`);
    const others = sight.requests.filter((it) => it !== address("mixed-day") && !it.startsWith("data:"));
    expect(others.length === 0, `${where}: asked for ${others.join(", ")}`);
    await shot(page, `report-${width}-${dark ? "dark" : "light"}`);
    await sight.close();
  }

  for (const [run, selector] of [["invalid", "#invalid"], ["closed", "#closed-loop"]]) {
    const sight = await visit(browser, address(run));
    expect(await seen(sight.page, selector), `${run}: no banner`);
    await shot(sight.page, `report-${run}`);
    await sight.close();
  }
  const plain = await visit(browser, address("chat"));
  expect(await plain.page.locator(".banner").count() === 0, "chat: a banner without a reason");
  expect((await plain.page.locator("#errors").innerText()).includes("No operation failed"), "chat: errors");
  await shot(plain.page, "report-chat");
  await plain.close();

  for (const [width, dark] of [[1280, false], [1280, true], [400, false]]) {
    const compared = pathToFileURL(join(process.env.REPORTS, "compared.html")).href;
    const sight = await visit(browser, compared, { width, dark });
    expect((await sight.page.locator("#verdict").innerText()) === "WORSE", "compared: verdict");
    expect(await sight.page.locator("#curves svg path.curve").count() === 4, "compared: two charts of two curves");
    expect(await sight.page.locator("#figures tr[data-change=worse]").count() > 0, "compared: nothing is worse");
    const faults = [...await overflowing(sight.page), ...await collisions(sight.page), ...sight.complaints];
    expect(faults.length === 0, `compared, ${width} wide:\n  ${faults.join("\n  ")}`);
    await shot(sight.page, `compared-${width}-${dark ? "dark" : "light"}`);
    await sight.close();
  }

  // On paper nothing scrolls, so all has to fit. A4 across has 1123 pixels, less the margins.
  const paper = await visit(browser, address("mixed-day"), { width: 1030, media: "print" });
  const faults = await overflowing(paper.page);
  expect(faults.length === 0, `print:\n  ${faults.join("\n  ")}`);
  await shot(paper.page, "report-print");
  await paper.close();
});
