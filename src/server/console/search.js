// Search for documents, and answers to questions.

import { marked } from "./evidence.js";
import { callApi, attempt, choice, field, fill, h } from "./dom.js";
import { number, say } from "./translations.js";

function hit(found, pipeline) {
  const rank = (ranked) => (ranked == null ? say("notListed") : number(ranked.rank));
  const labels = Object.entries(found.labels ?? {}).map(([task, { label, confidence }]) =>
    h("li", {}, `${task}: ${label}`, confidence == null ? "" : ` (${number(100 * confidence)} %)`));
  return h("li", { class: "card" },
    h("h2", {}, link(pipeline, found.document_id, String(found.metadata?.title ?? found.document_id))),
    h("p", { class: "quiet" }, found.document_id, " · ", say("score", number(found.score, 4)), " · ",
      say("byMeaning", rank(found.explanation.vector)), " · ", say("byWords", rank(found.explanation.text))),
    h("p", {}, marked(found.snippet.text, found.snippet.marks)),
    found.summary && h("p", {}, h("strong", {}, `${say("summary")}: `), found.summary),
    h("ul", { class: "labels" }, labels));
}

const link = (pipeline, id, text) => h("a", { href: `#/documents/${encodeURIComponent(id)}?${new URLSearchParams({ pipeline })}` }, text);

/** An answer: each sentence with the numbers of the passages that it cites, then those passages. */
function answer({ pipeline, reason, sentences, passages, dropped }) {
  const cited = passages.filter(({ number: each }) => sentences.some(({ citations }) => citations.includes(each)));
  return h("section", { class: "card", "aria-live": "polite" },
    h("h2", {}, say("answer")),
    reason && h("p", { class: "quiet" }, reason),
    sentences.map(({ text, citations }) => h("p", {}, text, citations.map((each) => [" ", h("sup", {}, `[${each}]`)]))),
    cited.map((each) => h("blockquote", {}, h("p", {}, each.text),
      h("footer", {}, say("passage", each.number), " · ", link(pipeline, each.document_id, each.document_id)))),
    dropped.map((each) => h("p", { class: "quiet" }, say("leftOut", `${each.text} (${each.reason})`))));
}

export function search(signal, parameters) {
  const given = (name) => parameters.get(name) ?? "";
  const [answers, results] = [h("div", {}), h("div", {})];
  const pipelines = choice("pipeline", [["", say("all")]], "");
  const form = h("form", { role: "search", class: "row" },
    field(say("query"), h("input", { name: "query", type: "search", required: true, value: given("query"), maxlength: 2000 })),
    field(say("pipeline"), pipelines),
    field(say("mode"), choice("mode", ["hybrid", "vector", "text"].map((mode) => [mode, say(mode)]), given("mode") || "hybrid")),
    field(say("filter"), h("textarea", { name: "filter", rows: 1 }, given("filter")), say("filterHint")),
    h("button", {}, say("search")), h("button", { name: "answer", value: "yes" }, say("answer")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/search?${new URLSearchParams(new FormData(form, event.submitter))}`;
  });
  attempt(async () => {
    const { pipelines: known } = await callApi("/v1/pipelines", undefined, signal);
    fill(pipelines, ...known.map(({ name }) => h("option", { value: name, selected: name === given("pipeline") }, name)));
    if (!given("query")) return;
    fill(results, h("p", { class: "quiet" }, say("loading")));
    const body = { query: given("query"), pipeline: given("pipeline") || known[0]?.name, mode: given("mode") || "hybrid", limit: 20 };
    const filter = given("filter").split("\n").map((line) => line.trim()).filter(Boolean);
    if (filter.length) body.filter = filter;
    if (given("answer")) {
      fill(answers, h("p", { class: "quiet" }, say("loading")));
      const question = { question: given("query"), pipeline: body.pipeline };
      // An answer may be slow or fail, so the hits of the search are shown without it.
      callApi("/v1/answer", question, signal).then((found) => fill(answers, answer(found)), (error) => fill(answers, h("p", { class: "bad" }, error.message)));
    }
    const { hits } = await callApi("/v1/search", body, signal).catch((error) => {
      fill(results, h("p", { class: "bad" }, error.message));
      throw error;
    });
    fill(results, h("p", { role: "status" }, say("found", number(hits.length))), h("ol", { class: "hits" }, hits.map((each) => hit(each, body.pipeline))));
  });
  return [form, answers, results];
}
