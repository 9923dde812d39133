// Recommendations for a user or a document, and popular documents.

import { callApi, attempt, field, fill, h } from "./dom.js";
import { number, say } from "./translations.js";

const link = (id, pipeline, text) =>
  h("a", { href: `#/documents/${encodeURIComponent(id)}?${new URLSearchParams({ pipeline })}` }, text ?? id);

/** A reason as text, with a link to the document that it names. */
function reason(why, pipeline) {
  switch (why.kind) {
    case "similar": return [say("similarTo", number(100 * why.similarity)), " ", link(why.document, pipeline)];
    case "liked": return [say("likedBefore", number(100 * why.similarity)), " ", link(why.document, pipeline)];
    case "label": return say("sharedLabel", why.task, why.label);
    case "popular": return say("popularWith", number(why.people));
    default: return why.kind;
  }
}

/** The recommended documents, each with its reasons. */
export const recommended = (hits, pipeline) =>
  h("ol", { class: "hits" }, hits.map((hit) =>
    h("li", { class: "card" },
      h("h2", {}, link(hit.document_id, pipeline, String(hit.metadata?.title ?? hit.document_id))),
      h("p", { class: "quiet" }, hit.document_id, " · ", say("score", number(hit.score, 4))),
      h("ul", { class: "labels" }, hit.reasons.map((why) => h("li", {}, reason(why, pipeline)))),
      hit.summary && h("p", {}, hit.summary))));

export function recommendations(signal, address) {
  const given = (name) => address.get(name) ?? "";
  const results = h("div", {});
  const pipelines = h("select", { name: "pipeline" });
  const text = (name) => h("input", { name, value: given(name), maxlength: 1024, autocomplete: "off" });
  const form = h("form", { role: "search", class: "row" },
    field(say("pipeline"), pipelines),
    field(say("forUser"), text("user")),
    field(say("likeDocument"), text("document"), say("neitherHint")),
    field(say("filter"), h("textarea", { name: "filter", rows: 1 }, given("filter")), say("filterHint")),
    h("button", {}, say("recommend")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/recommendations?${new URLSearchParams(new FormData(form))}`;
  });
  attempt(async () => {
    const { pipelines: known } = await callApi("/v1/pipelines", undefined, signal);
    // Similar documents can be found only by vectors.
    const withVectors = known.filter(({ tasks }) => tasks.some(({ kind }) => kind === "embed"));
    const pipeline = given("pipeline") || withVectors[0]?.name;
    fill(pipelines, ...withVectors.map(({ name }) => h("option", { value: name, selected: name === pipeline }, name)));
    if (!pipeline) return fill(results, h("p", { class: "quiet" }, say("noVectors")));
    fill(results, h("p", { class: "quiet" }, say("loading")));
    const parameters = new URLSearchParams({ pipeline, limit: 20 });
    for (const name of ["user", "document"]) if (given(name).trim()) parameters.set(name, given(name).trim());
    for (const line of given("filter").split("\n")) if (line.trim()) parameters.append("filter", line.trim());
    const { hits } = await callApi(`/v1/recommendations?${parameters}`, undefined, signal).catch((error) => {
      fill(results, h("p", { class: "bad" }, error.message));
      throw error;
    });
    fill(results, h("p", { role: "status" }, say("recommended", number(hits.length))), recommended(hits, pipeline));
  });
  return [form, results];
}

/** A few documents that are similar to this one, for its page. */
export function similarDocuments(id, pipeline, signal) {
  const list = h("div", {});
  attempt(async () => {
    const { hits } = await callApi(`/v1/recommendations?${new URLSearchParams({ pipeline, document: id, limit: 5 })}`, undefined, signal);
    if (hits.length) fill(list, h("h2", {}, say("similarDocuments")), recommended(hits, pipeline));
  });
  return list;
}
