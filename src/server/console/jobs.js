// Jobs: their progress, cancelling and retrying.

import { announce, callApi, attempt, poll, descriptionList, fill, h, jsonBlock, table } from "./dom.js";
import { moment, number, say } from "./translations.js";

const ENDED = ["succeeded", "partial", "failed", "cancelled"];
const RETRIED = ["partial", "failed", "cancelled"];

/** Finished rows of all rows, or finished units if the number of rows is not known. */
function progress({ progress: { rows, rows_done, units, units_done } }) {
  const [done, all] = rows ? [rows_done, rows] : [units_done, units];
  return [h("progress", { max: Math.max(all, 1), value: done, "aria-label": say("progress") }), ` ${number(done)} / ${number(all)}`];
}
const badge = (state) => h("span", { class: `badge ${state}` }, state);
const seconds = (value) => (value == null ? "" : `${number(value)} s`);

function actions(found, after) {
  const act = (verb, message) => () =>
    attempt(async () => {
      await callApi(`/v1/jobs/${encodeURIComponent(found.id)}/${verb}`, {});
      announce(say(message, found.id));
      after();
    });
  return h("span", { class: "actions" },
    !ENDED.includes(found.state) && found.state !== "cancelling" && h("button", { type: "button", onclick: act("cancel", "cancelled") }, say("cancel")),
    RETRIED.includes(found.state) && h("button", { type: "button", onclick: act("retry", "retried") }, say("retry")));
}

export function jobs(signal) {
  const list = h("div", {}, say("loading"));
  const refresh = async () => {
    const { jobs: found } = await callApi("/v1/jobs?limit=50", undefined, signal);
    const focused = document.activeElement?.closest("[data-job]")?.dataset.job;
    fill(list, table(say("jobs"),
      ["id", "kind", "pipeline", "state", "progress", "rate", "left", ""].map((word) => word && say(word)),
      found.map((each) => [
        h("a", { href: `#/jobs/${encodeURIComponent(each.id)}` }, each.id), each.kind, each.pipeline, badge(each.state), progress(each),
        each.rows_per_second == null ? "" : `${number(each.rows_per_second, 1)} /s`, seconds(each.seconds_left),
        h("span", { "data-job": each.id }, actions(each, () => attempt(refresh))),
      ])));
    if (focused) list.querySelector(`[data-job="${CSS.escape(focused)}"] button`)?.focus();
  };
  poll(2, signal, refresh);
  return list;
}

export function job(id, signal) {
  const all = h("div", {}, say("loading"));
  const refresh = async () => {
    const found = await callApi(`/v1/jobs/${encodeURIComponent(id)}`, undefined, signal);
    fill(all,
      h("p", {}, badge(found.state), " ", progress(found), " ", actions(found, () => attempt(refresh))),
      descriptionList([
        [say("id"), found.id], [say("kind"), found.kind], [say("pipeline"), found.pipeline], [say("reason"), found.reason],
        [say("time"), found.created_at && moment(Date.parse(found.created_at))], [say("left"), seconds(found.seconds_left)],
        [say("tokens"), number(found.progress.tokens + found.progress.generated_tokens)],
        [say("deviceSeconds"), number(found.device_seconds, 2)], [say("cost"), found.cost == null ? null : number(found.cost, 4)],
        [say("deadLetters"), number(found.dead_letters.count)],
      ]),
      h("h2", {}, say("specification")), jsonBlock(found.spec),
      found.report ? [h("h2", {}, say("report")), jsonBlock(found.report)] : [],
      found.faults?.length ? [h("h2", {}, say("failedUnits")), table(say("failedUnits"), [say("units"), say("source"), say("class"), say("reason")],
        found.faults.map((fault) => [number(fault.unit), fault.file, fault.class, fault.reason]))] : []);
  };
  poll(2, signal, refresh);
  return [h("p", {}, h("a", { href: "#/jobs" }, say("back"))), all];
}
