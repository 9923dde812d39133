// Dead letters and parked events: what failed and why, and sending records again.

import { announce, callApi, attempt, choice, descriptionList, field, fill, h, jsonBlock, table } from "./dom.js";
import { moment, number, say } from "./translations.js";

const positionOf = (letter) => `${letter.topic}[${letter.partition}]@${letter.record_offset}`;

async function replay(selection, after) {
  await attempt(async () => {
    const { records } = await callApi("/v1/dead-letters/replay", selection);
    announce(say("recordsReplayed", number(records)));
    after();
  });
}

export function deadLetters(signal, parameters) {
  const list = h("div", {}, say("loading"));
  const [pipeline, failureClass] = [parameters.get("pipeline") ?? "", parameters.get("class") ?? ""];
  const form = h("form", { class: "row" });
  const refresh = () =>
    attempt(async () => {
      const query = new URLSearchParams(Object.entries({ pipeline, class: failureClass }).filter(([, value]) => value));
      const { counts, letters: found } = await callApi(`/v1/dead-letters?${query}`, undefined, signal);
      const names = (key, chosen) => [["", say("all")], ...[...new Set([chosen, ...counts.map((each) => each[key])])].filter(Boolean).map((name) => [name])];
      const openFiltered = () => (location.hash = `#/letters?${new URLSearchParams(new FormData(form))}`);
      fill(form,
        field(say("pipeline"), choice("pipeline", names("pipeline", pipeline), pipeline)),
        field(say("class"), choice("class", names("class", failureClass), failureClass)),
        pipeline || failureClass ? h("button", { type: "button", onclick: () => replay(Object.fromEntries(query), refresh) }, say("replayAll")) : "");
      form.onchange = openFiltered;
      fill(list,
        table(say("class"), [say("pipeline"), say("class"), say("deadLetters")], counts.map((each) => [each.pipeline, each.class, number(each.letters)])),
        table(say("deadLetters"), ["id", "time", "pipeline", "task", "class", "reason", ""].map((word) => word && say(word)),
          found.map((letter) => [
            h("a", { href: `#/letters/${letter.id}` }, String(letter.id)), moment(letter.created_ms), letter.pipeline,
            letter.task || say("wholeRecord"), letter.class, letter.reason,
            letter.replayed_ms == null
              ? h("button", { type: "button", onclick: () => replay({ ids: [letter.id] }, refresh) }, say("replay"))
              : say("replayed"),
          ])));
    });
  refresh();
  const parked = h("div", {});
  attempt(async () => {
    const { events } = await callApi("/v1/parked-events", undefined, signal);
    if (events.length)
      fill(parked,
        table(say("parkedEvents"), ["id", "time", "pipeline", "topic", "key", "state", "reason"].map((word) => say(word)),
          events.map((event) => [
            String(event.id), moment(event.parked_ms), event.pipeline, event.topic, event.key,
            say(event.resend ? "toBeResent" : event.overtaken ? "overtaken" : "parked"), event.reason,
          ])));
  });
  return [form, list, parked];
}

export function deadLetter(id, signal) {
  const all = h("div", {}, say("loading"));
  const refresh = () =>
    attempt(async () => {
      const found = await callApi(`/v1/dead-letters/${encodeURIComponent(id)}`, undefined, signal);
      fill(all,
        descriptionList([
          [say("class"), found.class], [say("reason"), found.reason], [say("pipeline"), found.pipeline], [say("task"), found.task || say("wholeRecord")],
          [say("document"), found.document_id], [say("position"), positionOf(found)], [say("time"), moment(found.created_ms)],
          [say("attempts"), number(found.attempts)], [say("key"), found.key],
          [say("replayed"), found.replayed_ms == null ? null : moment(found.replayed_ms)],
        ]),
        found.replayed_ms == null ? h("button", { type: "button", onclick: () => replay({ ids: [found.id] }, refresh) }, say("replay")) : "",
        h("h2", {}, say("headers")), jsonBlock(found.headers),
        h("h2", {}, say("payload")), jsonBlock(found.payload ?? ""));
    });
  refresh();
  return [h("p", {}, h("a", { href: "#/letters" }, say("back"))), all];
}
