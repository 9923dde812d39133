// A document: what is said of it, by which model and prompt, from which record, and what that took.

import { marked, placesOf } from "./evidence.js";
import { ask, attempt, facts, fill, h, json, table } from "./page.js";
import { alike } from "./recommendations.js";
import { moment, number, say } from "./words.js";

const from = (place) => (place ? `${place.topic}[${place.partition}]@${place.offset ?? `${place.from_offset}…${place.to_offset}`}` : "");
const whether = (value) => (value == null ? "" : say(value ? "yes" : "no"));

const output = (found) =>
  h("section", { class: "card" },
    h("h2", {}, found.task, " ", h("span", { class: "badge" }, found.kind)),
    found.label && h("p", {}, h("strong", {}, found.label), found.confidence == null ? "" : ` (${number(100 * found.confidence)} %)`),
    found.text && h("p", {}, found.text),
    Object.keys(found.details ?? {}).length > 0 && h("details", {}, h("summary", {}, say("report")), json(found.details)),
    facts([
      [say("model"), found.model], [say("prompt"), found.prompt && `${found.prompt} ${(found.prompt_version ?? "").slice(0, 12)}`],
      [say("source"), from(found.record ?? found.source)], [say("time"), moment(found.updated_at_ms)],
      [say("tokens"), `${number(found.tokens)} + ${number(found.generated_tokens)}`],
      [say("deviceSeconds"), number(found.device_milliseconds / 1000, 3)], [say("cost"), found.cost == null ? null : number(found.cost, 6)],
      [say("reused"), whether(found.reused)],
    ]));

export function document(id, signal, parameters) {
  const all = h("div", {}, say("loading"));
  attempt(async () => {
    const found = await ask(`/v1/documents/${encodeURIComponent(id)}?${parameters}`, undefined, signal).catch((error) => {
      fill(all, h("p", { class: "bad" }, error.message));
      throw error;
    });
    const { document, history } = found;
    fill(all,
      h("h2", {}, String(document?.metadata?.title ?? found.document_id)),
      facts([
        [say("id"), found.document_id], [say("pipeline"), found.pipeline], [say("version"), document && String(document.version)],
        [say("deleted"), document?.deleted ? say("yes") : null], [say("time"), document && moment(document.updated_at_ms)],
        [say("source"), from(document?.source)],
      ]),
      document?.text ? [h("h2", {}, say("words")), h("div", { class: "text", tabindex: 0 }, marked(document.text, found.outputs.flatMap(placesOf)))] : "",
      h("h2", {}, say("outputs")), found.outputs.map(output),
      found.outputs.some(({ kind }) => kind === "embed") ? alike(found.document_id, found.pipeline, signal) : "",
      found.dead_letters.length ? table(say("dead"), [say("id"), say("task"), say("class"), say("reason"), say("place")],
        found.dead_letters.map((letter) => [h("a", { href: `#/letters/${letter.id}` }, String(letter.id)), letter.task || say("wholeRecord"), letter.class, letter.reason, from(letter)])) : "",
      table(say("history"), [say("time"), say("task"), say("version"), say("model"), say("place")],
        history.outputs.map((past) => [moment(past.processed_at_ms), past.task, String(past.version), past.model, from(past)])),
      history.unknown.map((sentence) => h("p", { class: "quiet" }, sentence)));
  });
  return [h("p", {}, h("a", { href: "#/search" }, say("back"))), all];
}
