// Looks at every page of the console and uses it.

import assert from "node:assert/strict";
import { address, atDesk, fits, look, onPhone, picture } from "./browser.mjs";

async function open(page, hash) {
  await page.goto(`${address}/${hash}`);
  await page.waitForSelector("h1");
}

await look(async () => {
  const desk = await atDesk();

  // The first page: small, from here alone, forbidding scripts from elsewhere, and usable soon.
  const files = [];
  desk.on("response", (response) => /\/$|\/console\//.test(new URL(response.url()).pathname) && files.push(response.body().catch(() => "")));
  const first = await desk.goto(`${address}/`);
  const policy = first.headers()["content-security-policy"] ?? "";
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval/);
  await desk.getByText("The service is ready.").waitFor();
  const usable = await desk.evaluate(() => performance.now());
  await desk.waitForFunction(() => [...document.querySelectorAll(".chart svg")].length === 4);
  await desk.getByText("Records in the last 24 hours").waitFor();
  assert.ok((await desk.locator(".figure").allInnerTexts()).every((text) => text !== "…"), "a figure is missing");
  const bytes = (await Promise.all(files)).reduce((sum, body) => sum + body.length, 0);
  assert.ok(bytes > 10_000 && bytes < 200_000, `the first page takes ${bytes} bytes`);
  await picture(desk, "overview");

  // By keyboard alone: past the navigation, and to another page.
  await desk.keyboard.press("Tab");
  assert.equal(await desk.evaluate(() => document.activeElement.className), "skip");
  await desk.getByRole("link", { name: "Search", exact: true }).focus();
  await desk.keyboard.press("Enter");
  await desk.waitForSelector("form[role=search]");

  // Search finds.
  await desk.getByLabel("What are you looking for?").fill("a gift for someone who loves to cook");
  await desk.keyboard.press("Enter");
  await desk.waitForSelector(".hits li h2");
  const hits = await desk.locator(".hits > li").count();
  assert.ok(hits >= 5, `${hits} documents were found`);
  await picture(desk, "search");
  await desk.getByLabel("Filter").fill("topic=kitchen");
  await desk.getByRole("button", { name: "Search" }).click();
  await desk.waitForURL(/filter=topic/);
  await desk.waitForFunction(() => [...document.querySelectorAll(".hits > li")].length > 0
    && [...document.querySelectorAll(".hits > li")].every((hit) => hit.innerText.includes("topic: kitchen")));

  // A document tells where each of its outputs comes from.
  await desk.locator(".hits h2 a").first().click();
  await desk.getByRole("heading", { name: "Outputs" }).waitFor();
  const told = await desk.locator("main").innerText();
  assert.doesNotMatch(told, /\[object/);
  for (const word of ["minilm", "documents.products", "topic", "vector"]) assert.ok(told.includes(word), `the document does not say ${word}: ${told}`);
  const marked = () => desk.locator("main .text mark").evaluateAll((all) => all.map((mark) => mark.title));
  assert.ok((await marked()).includes("summary"), "the sentences of the summary are not marked in the text");
  await desk.getByRole("heading", { name: "Similar documents" }).waitFor();
  await picture(desk, "document");

  // What was extracted is marked in the text, and says as what.
  await open(desk, `#/search?${new URLSearchParams({ query: "board", pipeline: "products", filter: "facts.confidence>0" })}`);
  await desk.locator(".hits h2 a").first().click();
  await desk.getByRole("heading", { name: "Outputs" }).waitFor();
  const facts = await marked();
  assert.ok(facts.some((title) => title.startsWith("facts.")), `nothing is marked as a fact: ${facts}`);
  await picture(desk, "document-facts");

  // To a question that no document is near to, the service says so; what search finds stands below in any case.
  const asks = async (question) => {
    await open(desk, "#/search");
    await desk.getByLabel("What are you looking for?").fill(question);
    await desk.getByRole("button", { name: "Answer" }).click();
    await desk.getByRole("heading", { name: "Answer" }).waitFor();
    await desk.waitForSelector(".hits li h2");
  };
  await asks("which kettle switches itself off?");
  await desk.getByText(/not found in the documents/).waitFor();
  // No model of the demo can answer, so this answer is ours; the page shows each sentence with what says it.
  await desk.route("**/v1/answer", (route) => route.fulfill({ json: {
    pipeline: "products", reason: null, sentences: [{ text: "A knife <b>forged</b> by hand.", citations: [2] }],
    passages: [{ number: 1, document_id: "other", text: "Not cited." }, { number: 2, document_id: "KT-2001", text: "Forged by hand." }],
    dropped: [{ text: "It flies.", citation: 1, reason: "passage 1 has 0 of its 2 words" }] } }));
  await asks("is it forged?");
  const answer = await desk.locator("section.card").first().innerText();
  for (const part of ["A knife <b>forged</b> by hand. [2]", "Forged by hand.", "Passage 2 · KT-2001", "Left out: It flies. (passage 1"]) {
    assert.ok(answer.includes(part), `the answer does not say ${part}: ${answer}`);
  }
  assert.ok(!answer.includes("Not cited."), "a passage that no sentence cites is shown");
  await desk.unroute("**/v1/answer");
  await picture(desk, "answer");

  // Recommendations: what is popular, then what a user may like, each with its reasons, and a document like another.
  await open(desk, "#/recommendations");
  await desk.getByText(/recently liked by \d+ people/).first().waitFor();
  await desk.getByLabel("For this user").fill("en-01");
  await desk.keyboard.press("Enter");
  await desk.getByText(/% similar to a liked document:/).first().waitFor();
  await picture(desk, "recommendations");
  await desk.getByLabel("For this user").fill("");
  await desk.getByLabel("Similar to this document").fill("GD-1001");
  await desk.getByRole("button", { name: "Recommend" }).click();
  await desk.waitForURL(/document=GD-1001/);
  await desk.getByText(/same topic: garden/).first().waitFor();
  assert.ok(!(await desk.locator(".hits h2 a").evaluateAll((links) => links.map((link) => link.hash))).some((hash) => hash.includes("GD-1001?")), "a document is recommended for itself");

  // A job is called off.
  await open(desk, "#/jobs");
  await desk.getByText("to-be-called-off").waitFor();
  await picture(desk, "jobs");
  await desk.getByRole("button", { name: "Cancel" }).click();
  await desk.locator(".badge.cancelled, .badge.cancelling").waitFor();
  assert.match(await desk.locator("#message").innerText(), /to-be-called-off/);
  await desk.getByRole("link", { name: "to-be-called-off" }).click();
  await desk.getByText("Specification").waitFor();
  assert.doesNotMatch(await desk.locator("main").innerText(), /\[object/);
  await picture(desk, "job");

  // A dead letter is looked at and sent again.
  await open(desk, "#/letters");
  await desk.getByRole("button", { name: "Replay", exact: true }).first().waitFor();
  const before = await desk.getByRole("button", { name: "Replay", exact: true }).count();
  assert.ok(before >= 3, `${before} dead letters can be sent again`);
  await picture(desk, "letters");
  await desk.locator("select[name=class]").selectOption({ index: 1 });
  await desk.waitForURL(/class=/);
  await open(desk, "#/letters");
  await desk.locator("tbody a[href^='#/letters/']").first().click();
  await desk.getByRole("heading", { name: "Payload" }).waitFor();
  await picture(desk, "letter");
  await desk.getByRole("button", { name: "Replay", exact: true }).click();
  await desk.getByText(/Records sent again: 1/).waitFor();

  // Where no pipeline makes leads, the page says so.
  await open(desk, "#/leads");
  await desk.getByText("No pipeline has leads.").waitFor();

  // The graph is drawn.
  await open(desk, "#/pipelines");
  await desk.locator("svg.graph .name").first().waitFor();
  const drawn = await desk.locator("svg.graph title").allTextContents();
  for (const name of ["documents.products", "topic", "facts", "seo", "results"]) {
    assert.ok(drawn.some((title) => title.startsWith(name)), `the graph has no ${name}: ${drawn}`);
  }
  await picture(desk, "pipelines");

  // Dark, and in Korean.
  await desk.getByRole("button", { name: "Dark" }).click();
  assert.equal(await desk.evaluate(() => document.documentElement.dataset.theme), "dark");
  await desk.getByRole("button", { name: "한국어" }).click();
  await desk.getByRole("heading", { name: "파이프라인", level: 1 }).waitFor();
  assert.equal(await desk.evaluate(() => document.documentElement.lang), "ko");
  await desk.reload();
  await desk.getByRole("heading", { name: "파이프라인", level: 1 }).waitFor();
  await picture(desk, "pipelines-dark-ko");

  // On a phone nothing is wider than the page.
  const phone = await onPhone();
  const question = encodeURIComponent("좋은 만년필");
  for (const [name, hash] of [["overview", ""], ["search", `#/search?query=${question}`], ["recommendations", "#/recommendations?user=ko-01"], ["jobs", "#/jobs"], ["leads", "#/leads"], ["letters", "#/letters"], ["pipelines", "#/pipelines"]]) {
    await open(phone, hash);
    await phone.waitForFunction(() => !document.querySelector("main").innerText.includes("불러오는 중"));
    await fits(phone, name);
    await picture(phone, `phone-${name}`);
  }
  console.log(`first page usable after ${Math.round(usable)} ms, ${bytes} bytes`);
});
