// Looks at the leads of the sample letters.

import assert from "node:assert/strict";
import { address, atDesk, fits, look, onPhone, picture } from "./browser.mjs";

const scores = (page) => page.locator("tbody tr td:first-child > span").allInnerTexts();

await look(async () => {
  const desk = await atDesk({ permissions: ["clipboard-read", "clipboard-write"] });
  await desk.goto(`${address}/#/leads`);
  await desk.locator("svg.score").first().waitFor();
  const shown = (await scores(desk)).map((text) => Number.parseFloat(text));
  assert.ok(shown.length >= 10, `${shown.length} leads are shown`);
  assert.deepEqual(shown, [...shown].sort((a, b) => b - a), "the highest score is not first");
  await picture(desk, "leads");

  // By keyboard alone: sorted by time, and only one company's.
  await desk.getByRole("link", { name: "Time" }).focus();
  await desk.keyboard.press("Enter");
  await desk.waitForURL(/sort=-updated/);
  await desk.getByLabel("Company").fill("ALDER and finch");
  await desk.keyboard.press("Enter");
  await desk.waitForURL(/company=ALDER/);
  await desk.waitForFunction(() => [...document.querySelectorAll("tbody tr")].length > 0
    && [...document.querySelectorAll("tbody tr")].every((row) => /alder/i.test(row.innerText)));

  // One lead: its parts, the text, a draft that can be copied, and its company.
  await desk.goto(`${address}/#/leads/SL-1001?pipeline=sales`);
  await desk.getByText("Parts of the score").waitFor();
  const told = await desk.locator("main").innerText();
  assert.doesNotMatch(told, /\[object|undefined/);
  for (const word of ["budget", "Ivy Alder", "architects", "Documents of this company"]) assert.ok(told.includes(word), `the lead does not say ${word}: ${told}`);
  const draft = await desk.locator("section.card pre").first().innerText();
  assert.match(draft, /^Dear Ivy Alder/);
  await desk.getByRole("button", { name: "Copy" }).first().click();
  await desk.getByText("Copied.").waitFor();
  assert.equal(await desk.evaluate(() => navigator.clipboard.readText()), draft);
  await picture(desk, "lead");

  // All of them as a file.
  await desk.goto(`${address}/#/leads`);
  const [file] = await Promise.all([desk.waitForEvent("download"), desk.getByRole("button", { name: "Save as CSV" }).click()]);
  assert.equal(file.suggestedFilename(), "leads.csv");

  // In Korean, dark, on a phone: nothing is wider than the page, and the draft is in the prospect's language.
  const phone = await onPhone();
  for (const [name, hash] of [["leads", "#/leads"], ["lead", "#/leads/SL-1007?pipeline=sales"]]) {
    await phone.goto(`${address}/${hash}`);
    await phone.locator("svg.score").first().waitFor();
    await fits(phone, name);
    await picture(phone, `phone-${name}-ko`);
  }
  assert.match(await phone.locator("section.card pre").first().innerText(), /^김서윤님, 안녕하세요/);
});
