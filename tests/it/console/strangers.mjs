// Pages of other sites that somebody has open beside the console, and a name of theirs that turns out to be this machine's.

import assert from "node:assert/strict";
import http from "node:http";
import { address, atDesk, look, stranger } from "./browser.mjs";

const api = new URL(address);
const job = (id) => JSON.stringify({ version: 1, id, kind: "delete", pipeline: "products", documents: ["EL-4001"] });
const question = JSON.stringify({ query: "kettle", pipeline: "products", limit: 1 });

/** Everything that a page can try without the browser's asking first, and what it asks for: how each ended, and what could be read. */
const attempts = async ({ address, job, form, question }) => {
  const ended = {};
  const attempt = async (name, path, options) => {
    try {
      const answer = await fetch(`${address}${path}`, options);
      ended[name] = { type: answer.type, status: answer.status, text: await answer.text() };
    } catch (error) {
      ended[name] = { type: "refused", text: String(error) };
    }
  };
  await attempt("simple", "/v1/jobs", { method: "POST", mode: "no-cors", body: job });
  await attempt("blob", "/v1/jobs", { method: "POST", mode: "no-cors", body: new Blob([job]) });
  await attempt("json", "/v1/jobs", { method: "POST", headers: { "content-type": "application/json" }, body: job });
  await attempt("read", "/v1/pipelines", {});
  await attempt("search", "/v1/search", { method: "POST", headers: { "content-type": "application/json" }, body: question });
  navigator.sendBeacon(`${address}/v1/jobs`, job);
  const target = document.body.appendChild(Object.assign(document.createElement("iframe"), { name: "answer" }));
  const loaded = new Promise((resolve) => target.addEventListener("load", resolve, { once: true }));
  const post = Object.assign(document.createElement("form"), { action: `${address}/v1/jobs`, method: "POST", enctype: "text/plain", target: "answer" });
  post.append(Object.assign(document.createElement("input"), { name: form[0], value: form[1] }));
  document.body.append(post);
  post.submit();
  await loaded;
  return ended;
};

/** The API as programs of this machine ask it. */
const ask = async (path) => (await fetch(`${address}${path}`)).json();

await look(async () => {
  const before = await ask("/v1/jobs");
  const site = http.createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<!doctype html><body>")).listen(0, "127.0.0.1");
  try {
    // A form writes `name=value`; the sign hides in a string of the job.
    const form = job("of-a-form").replace("EL-4001", "EL-4001=").split("=");
    const given = { address, job: job("of-another-site"), form, question };
    const page = await stranger();
    await page.goto(`http://evil.test:${site.address().port}/`);
    const ended = await page.evaluate(attempts, given);
    for (const [name, { type, text }] of Object.entries(ended)) {
      assert.ok(["opaque", "refused"].includes(type), `${name} is answered to another site: ${type}`);
      assert.ok(name === "simple" || name === "blob" ? text === "" : !text.includes("products"), `${name}: ${text}`);
    }

    // The same page once its name leads here: for the browser it is of one origin with the API.
    await page.goto(`http://rebind.test:${api.port}/`);
    const rebound = await page.evaluate(attempts, { ...given, address: "" });
    for (const name of ["simple", "blob", "json", "read", "search"]) {
      assert.ok([403, 415].includes(rebound[name].status), `${name} under another name: ${JSON.stringify(rebound[name])}`);
      assert.ok(!rebound[name].text.includes("document_id"), `${name}: ${rebound[name].text}`);
    }
    assert.deepEqual(await ask("/v1/jobs"), before, "another site asked for a job");

    // What is refused to them is good for our own page: the attempts would have worked.
    const own = await atDesk();
    await own.goto(`${address}/`);
    const allowed = await own.evaluate(async ([path, body]) => {
      const answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body });
      return [answer.status, await answer.text()];
    }, ["/v1/search", question]);
    assert.equal(allowed[0], 200, allowed[1]);
    assert.match(allowed[1], /document_id/);

    // An address that encodes nothing is no empty page.
    await own.goto(`${address}/#/%E0%A4%A`);
    await own.locator("h1").waitFor();
  } finally {
    site.close();
  }
});
