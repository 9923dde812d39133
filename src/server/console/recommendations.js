// What to show next: to whoever looks at a document, to a user, or to somebody new.

import { ask, attempt, field, fill, h } from "./page.js";
import { number, say } from "./words.js";

const open = (id, pipeline, text) =>
  h("a", { href: `#/documents/${encodeURIComponent(id)}?${new URLSearchParams({ pipeline })}` }, text ?? id);

/** Why a document is recommended, as a sentence. A word that stands for a document becomes a link to it. */
function reason(why, pipeline) {
  switch (why.kind) {
    case "similar": return [say("similarTo", number(100 * why.similarity)), " ", open(why.document, pipeline)];
    case "liked": return [say("likedBefore", number(100 * why.similarity)), " ", open(why.document, pipeline)];
    case "label": return say("sharedLabel", why.task, why.label);
    case "popular": return say("popularWith", number(why.people));
    default: return why.kind;
  }
}

/** The recommended documents, each with its reasons. */
export const recommended = (hits, pipeline) =>
  h("ol", { class: "hits" }, hits.map((hit) =>
    h("li", { class: "card" },
      h("h2", {}, open(hit.document_id, pipeline, String(hit.metadata?.title ?? hit.document_id))),
      h("p", { class: "quiet" }, hit.document_id, " · ", say("score", number(hit.score, 4))),
      h("ul", { class: "labels" }, hit.reasons.map((why) => h("li", {}, reason(why, pipeline)))),
      hit.summary && h("p", {}, hit.summary))));

export function recommendations(signal, parameters) {
  const given = (name) => parameters.get(name) ?? "";
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
    const { pipelines: known } = await ask("/v1/pipelines", undefined, signal);
    // Only vectors tell which documents are alike.
    const able = known.filter(({ tasks }) => tasks.some(({ kind }) => kind === "embed"));
    const pipeline = given("pipeline") || able[0]?.name;
    fill(pipelines, ...able.map(({ name }) => h("option", { value: name, selected: name === pipeline }, name)));
    if (!pipeline) return fill(results, h("p", { class: "quiet" }, say("noVectors")));
    fill(results, h("p", { class: "quiet" }, say("loading")));
    const wish = new URLSearchParams({ pipeline, limit: 20 });
    for (const name of ["user", "document"]) if (given(name).trim()) wish.set(name, given(name).trim());
    for (const line of given("filter").split("\n")) if (line.trim()) wish.append("filter", line.trim());
    const { hits } = await ask(`/v1/recommendations?${wish}`, undefined, signal).catch((error) => {
      fill(results, h("p", { class: "bad" }, error.message));
      throw error;
    });
    fill(results, h("p", { role: "status" }, say("recommended", number(hits.length))), recommended(hits, pipeline));
  });
  return [form, results];
}

/** A few documents like this one, for its page. */
export function alike(id, pipeline, signal) {
  const place = h("div", {});
  attempt(async () => {
    const { hits } = await ask(`/v1/recommendations?${new URLSearchParams({ pipeline, document: id, limit: 5 })}`, undefined, signal);
    if (hits.length) fill(place, h("h2", {}, say("alike")), recommended(hits, pipeline));
  });
  return place;
}
