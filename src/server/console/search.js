// Questions to documents.

import { ask, attempt, choice, field, fill, h } from "./page.js";
import { number, say } from "./words.js";

/** The snippet with the words that were asked for. Marks are bytes of its UTF-8. */
function marked({ text, marks }) {
  const [bytes, decoder] = [new TextEncoder().encode(text), new TextDecoder()];
  const parts = [];
  let at = 0;
  for (const { start, end } of marks) {
    parts.push(decoder.decode(bytes.subarray(at, start)), h("mark", {}, decoder.decode(bytes.subarray(start, end))));
    at = end;
  }
  return [...parts, decoder.decode(bytes.subarray(at))];
}

function hit(found, pipeline) {
  const place = (standing) => (standing == null ? say("notListed") : number(standing.rank));
  const labels = Object.entries(found.labels ?? {}).map(([task, { label, confidence }]) =>
    h("li", {}, `${task}: ${label}`, confidence == null ? "" : ` (${number(100 * confidence)} %)`));
  return h("li", { class: "card" },
    h("h2", {}, h("a", { href: `#/documents/${encodeURIComponent(found.document_id)}?${new URLSearchParams({ pipeline })}` },
      String(found.metadata?.title ?? found.document_id))),
    h("p", { class: "quiet" }, found.document_id, " · ", say("score", number(found.score, 4)), " · ",
      say("byMeaning", place(found.explanation.vector)), " · ", say("byWords", place(found.explanation.text))),
    h("p", {}, marked(found.snippet)),
    found.summary && h("p", {}, h("strong", {}, `${say("summary")}: `), found.summary),
    h("ul", { class: "labels" }, labels));
}

export function search(signal, parameters) {
  const given = (name) => parameters.get(name) ?? "";
  const results = h("div", {});
  const pipelines = choice("pipeline", [["", say("all")]], "");
  const form = h("form", { role: "search", class: "row" },
    field(say("query"), h("input", { name: "query", type: "search", required: true, value: given("query"), maxlength: 2000 })),
    field(say("pipeline"), pipelines),
    field(say("mode"), choice("mode", ["hybrid", "vector", "text"].map((mode) => [mode, say(mode)]), given("mode") || "hybrid")),
    field(say("filter"), h("textarea", { name: "filter", rows: 1 }, given("filter")), say("filterHint")),
    h("button", {}, say("search")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/search?${new URLSearchParams(new FormData(form))}`;
  });
  attempt(async () => {
    const { pipelines: known } = await ask("/v1/pipelines", undefined, signal);
    fill(pipelines, ...known.map(({ name }) => h("option", { value: name, selected: name === given("pipeline") }, name)));
    if (!given("query")) return;
    fill(results, h("p", { class: "quiet" }, say("loading")));
    const body = { query: given("query"), pipeline: given("pipeline") || known[0]?.name, mode: given("mode") || "hybrid", limit: 20 };
    const filter = given("filter").split("\n").map((line) => line.trim()).filter(Boolean);
    if (filter.length) body.filter = filter;
    const { hits } = await ask("/v1/search", body, signal).catch((error) => {
      fill(results, h("p", { class: "bad" }, error.message));
      throw error;
    });
    fill(results, h("p", { role: "status" }, say("found", number(hits.length))), h("ol", { class: "hits" }, hits.map((each) => hit(each, body.pipeline))));
  });
  return [form, results];
}
