// A document: its outputs, the model, prompt, record and cost of each, its dead letters and its history.

import { marked, rangesOf } from "./evidence.js";
import { callApi, attempt, descriptionList, fill, h, jsonBlock, table } from "./dom.js";
import { similarDocuments } from "./recommendations.js";
import { moment, number, say } from "./translations.js";

const positionOf = (record) =>
  (record ? `${record.topic}[${record.partition}]@${record.offset ?? `${record.from_offset}…${record.to_offset}`}` : "");
const yesOrNo = (value) => (value == null ? "" : say(value ? "yes" : "no"));

const output = (found) =>
  h("section", { class: "card" },
    h("h2", {}, found.task, " ", h("span", { class: "badge" }, found.kind)),
    found.label && h("p", {}, h("strong", {}, found.label), found.confidence == null ? "" : ` (${number(100 * found.confidence)} %)`),
    found.text && h("p", {}, found.text),
    Object.keys(found.details ?? {}).length > 0 && h("details", {}, h("summary", {}, say("details")), jsonBlock(found.details)),
    descriptionList([
      [say("model"), found.model], [say("prompt"), found.prompt && `${found.prompt} ${(found.prompt_version ?? "").slice(0, 12)}`],
      [say("source"), positionOf(found.record ?? found.source)], [say("time"), moment(found.updated_at_ms)],
      [say("tokens"), `${number(found.tokens)} + ${number(found.generated_tokens)}`],
      [say("deviceSeconds"), number(found.device_milliseconds / 1000, 3)], [say("cost"), found.cost == null ? null : number(found.cost, 6)],
      [say("reused"), yesOrNo(found.reused)],
    ]));

export function documentPage(id, signal, parameters) {
  const all = h("div", {}, say("loading"));
  attempt(async () => {
    const found = await callApi(`/v1/documents/${encodeURIComponent(id)}?${parameters}`, undefined, signal).catch((error) => {
      fill(all, h("p", { class: "bad" }, error.message));
      throw error;
    });
    const { document, history } = found;
    fill(all,
      h("h2", {}, String(document?.metadata?.title ?? found.document_id)),
      descriptionList([
        [say("id"), found.document_id], [say("pipeline"), found.pipeline], [say("version"), document && String(document.version)],
        [say("deleted"), document?.deleted ? say("yes") : null], [say("time"), document && moment(document.updated_at_ms)],
        [say("source"), positionOf(document?.source)],
      ]),
      document?.text ? [h("h2", {}, say("documentText")), h("div", { class: "text", tabindex: 0 }, marked(document.text, found.outputs.flatMap(rangesOf)))] : "",
      h("h2", {}, say("outputs")), found.outputs.map(output),
      found.outputs.some(({ kind }) => kind === "embed") ? similarDocuments(found.document_id, found.pipeline, signal) : "",
      found.dead_letters.length ? table(say("deadLetters"), [say("id"), say("task"), say("class"), say("reason"), say("position")],
        found.dead_letters.map((letter) => [h("a", { href: `#/letters/${letter.id}` }, String(letter.id)), letter.task || say("wholeRecord"), letter.class, letter.reason, positionOf(letter)])) : "",
      table(say("history"), [say("time"), say("task"), say("version"), say("model"), say("position")],
        history.outputs.map((past) => [moment(past.processed_at_ms), past.task, String(past.version), past.model, positionOf(past)])),
      history.unknown.map((sentence) => h("p", { class: "quiet" }, sentence)));
  });
  return [h("p", {}, h("a", { href: "#/search" }, say("back"))), all];
}
