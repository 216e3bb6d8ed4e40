// What every sight of the admin page must hold, and how to get in.

export async function enter(page, token) {
  await page.fill("#token", token);
  await page.click("#login button");
}

/** The contrast of each text with what it stands on (WCAG 2: 4.5 at least, 3 where it is large). */
export const pale = (page) => page.evaluate(() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([red, green, blue]) => [red, green, blue]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (it) => {
    for (let at = it; at !== null; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const faults = [];
  for (const it of document.body.querySelectorAll("*")) {
    const own = [...it.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim() !== "");
    if (!own || it.getClientRects().length === 0 || it.closest(".skip")) continue;
    const style = getComputedStyle(it);
    const colour = numbers(it.ownerSVGElement ? style.fill : style.color);
    const [one, other] = [light(colour), light(ground(it))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) {
      faults.push(`${contrast.toFixed(1)}: <${it.tagName}> ${it.textContent.trim().slice(0, 40)}`);
    }
  }
  return faults;
});

/** What those who do not see the page are not told. */
export const unnamed = (page) => page.evaluate(() => [
  ...[...document.querySelectorAll("table")].filter((it) => !it.caption?.textContent).map(() => "a table without a caption"),
  ...[...document.querySelectorAll("th")].filter((it) => !it.scope).map((it) => `a heading of nothing: ${it.textContent}`),
  ...[...document.querySelectorAll("svg[role=img]")].filter((it) => !it.getAttribute("aria-label")).map(() => "a chart without a name"),
  ...[...document.querySelectorAll("section")].filter((it) => !it.getAttribute("aria-label") && !document.getElementById(it.getAttribute("aria-labelledby")))
    .map((it) => `a section without a name: ${it.id}`),
  ...[...document.querySelectorAll("input, select")].filter((it) => !it.labels.length && !it.getAttribute("aria-label")).map((it) => `a field without a name: ${it.id}`),
]);
