// Decides on copy as an editor does, by keyboard.

import assert from "node:assert/strict";
import { address, atDesk, fits, look, onPhone, picture } from "./browser.mjs";

const ask = async (path) => (await fetch(`${address}${path}`)).json();
const inReview = async () => (await ask("/v1/copy")).in_review;

await look(async () => {
  const desk = await atDesk({ viewport: { width: 1280, height: 900 } });
  assert.equal(await inReview(), 4);

  // The queue says what waits and why; keys move through it and open.
  await desk.goto(`${address}/#/copy`);
  await desk.getByText("Versions that wait for a decision: 4").waitFor();
  const list = await desk.locator("main").innerText();
  for (const word of ["Banned word", "cheapest", "Used by another page", "All checks passed.", "핸드드립 커피 세트"]) {
    assert.ok(list.includes(word), `the queue does not say ${word}: ${list}`);
  }
  await picture(desk, "copy-queue");
  await desk.keyboard.press("j");
  assert.equal(await desk.evaluate(() => document.activeElement.tagName), "A");
  await desk.keyboard.press("j");
  await desk.keyboard.press("k");
  await desk.keyboard.press("Enter");

  // The copy stands beside its source, with its facts marked in both. A approves, and the next one follows.
  await desk.locator("p.source mark").first().waitFor();
  assert.ok((await desk.locator("dl mark").count()) > 0, "no fact of the copy is marked");
  const shown = await desk.locator("main").innerText();
  for (const word of ["CP-1", "40 x 25 cm", "Evidence for each fact", "jsonld"]) assert.ok(shown.includes(word), `the page does not say ${word}: ${shown}`);
  assert.doesNotMatch(shown, /\[object/);
  await picture(desk, "copy-page");
  await desk.keyboard.press("a");
  await desk.waitForURL(/CP-2/);
  assert.equal(await inReview(), 3);
  assert.equal((await ask("/v1/copy/CP-1")).published.version, 1);

  // Where a check speaks, A asks first.
  await desk.getByText("Banned word").first().waitFor();
  await desk.keyboard.press("a");
  await desk.getByText(/Approve again to overrule/).waitFor();
  assert.equal(await inReview(), 3, "nothing is approved by one stroke against a check");

  // E edits: the fields of the copy, with their lengths counted. Keys are letters there.
  await desk.keyboard.press("e");
  const title = desk.locator("textarea[name=title]");
  await title.waitFor();
  await title.fill("A lamp for a reader");
  await desk.getByText("19 of 60 characters").waitFor();
  await desk.locator("textarea[name=description]").fill("A lamp that is easy to read by.");
  const markup = desk.locator("textarea[name=jsonld]");
  await markup.fill((await markup.inputValue()).replace("The cheapest lamp there is.", "A lamp."));
  await picture(desk, "copy-edit");
  await desk.getByRole("button", { name: "Save" }).click();
  await desk.getByText("in review 2").waitFor();
  const versions = (await ask("/v1/copy/CP-2")).versions.map(({ version, origin, state }) => `${version} ${origin} ${state}`);
  assert.deepEqual(versions, ["2 edited review", "1 generated superseded"]);

  // R rejects, by a button as well as by its key.
  await desk.getByRole("button", { name: "Reject (R)" }).click();
  await desk.waitForURL(/CP-[34]/);
  assert.equal(await inReview(), 2);

  // On a phone, in the dark and in Korean nothing is wider than the page.
  const phone = await onPhone();
  for (const [name, hash, word] of [["queue", "#/copy", "결정을 기다리는 버전"], ["page", "#/copy/CP-4?pipeline=seo", "다른 페이지와 중복됨"]]) {
    await phone.goto(`${address}/${hash}`);
    await phone.getByText(word).first().waitFor();
    await fits(phone, name);
    await picture(phone, `phone-copy-${name}`);
  }
  console.log("copy was approved, edited and rejected by keyboard");
});
