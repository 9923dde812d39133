// Leads: their scores, extracted facts, drafted replies, deliveries and companies.

import { marked } from "./evidence.js";
import { announce, callApi, attempt, choice, descriptionList, field, fill, h, svg, table } from "./dom.js";
import { moment, number, say } from "./translations.js";

/** The score as text and as a bar with a segment for each positive part. Negative parts shorten the bar at its end. */
function bar(lead) {
  const shares = lead.parts.filter((part) => part.value > 0);
  const label = `${number(lead.score, 2)} / ${number(lead.maximum)}`;
  const end = (100 * lead.score) / lead.maximum;
  let at = 0;
  const segments = shares.map((part, index) => {
    const width = Math.max(Math.min((100 * part.value) / lead.maximum, end - at), 0);
    const segment = svg("rect", { x: at, y: 0, width, height: 8, class: `part part${index % 6}` },
      svg("title", {}, `${part.name} ${number(part.value, 2)}`));
    at += width;
    return segment;
  });
  return [
    h("span", { class: lead.above ? "good" : "" }, label),
    svg("svg", { class: "score", viewBox: "0 0 100 8", preserveAspectRatio: "none", role: "img",
      "aria-label": `${label}: ${lead.parts.map((part) => `${part.name} ${number(part.value, 2)}`).join(", ")}` },
    svg("rect", { x: 0, y: 0, width: 100, height: 8, class: "whole" }), segments),
  ];
}

const address = (lead, pipeline) => `#/leads/${encodeURIComponent(lead.document_id)}?${new URLSearchParams({ pipeline })}`;
const nameOf = (lead) => [lead.company, lead.person].filter(Boolean).join(" · ") || lead.document_id;

const rows = (leads, pipeline) =>
  leads.map((lead) => [bar(lead), h("a", { href: address(lead, pipeline) }, nameOf(lead)), lead.stage, lead.intent, moment(lead.updated_at_ms)]);

/** A table heading that sorts by its column. */
const sorter = (key, order, query) =>
  h("a", { href: `#/leads?${new URLSearchParams({ ...query, sort: order })}`, "aria-current": query.sort === order ? "true" : null },
    say(key), query.sort === order ? " ▾" : "");

export function leads(signal, parameters) {
  const given = (name) => parameters.get(name) ?? "";
  const list = h("div", {}, say("loading"));
  const form = h("form", { class: "row" });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/leads?${new URLSearchParams([...new FormData(form)].filter(([, value]) => value))}`;
  });
  attempt(async () => {
    const { pipelines } = await callApi("/v1/pipelines", undefined, signal);
    const names = pipelines.filter(({ tasks }) => tasks.some(({ kind }) => kind === "score")).map(({ name }) => name);
    if (names.length === 0) return fill(list, h("p", { class: "quiet" }, say("noLeads")));
    const query = { pipeline: given("pipeline") || names[0], sort: given("sort") || "score" };
    for (const name of ["company", "stage", "min_score", "cursor"]) if (given(name)) query[name] = given(name);
    fill(form,
      field(say("pipeline"), choice("pipeline", names.map((name) => [name]), query.pipeline)),
      field(say("company"), h("input", { name: "company", type: "search", value: given("company"), maxlength: 200 })),
      field(say("stage"), h("input", { name: "stage", value: given("stage"), maxlength: 100 })),
      field(say("minScore"), h("input", { name: "min_score", type: "number", step: "any", value: given("min_score") })),
      h("input", { type: "hidden", name: "sort", value: query.sort }),
      h("button", {}, say("search")));
    const { leads: found, next, threshold } = await callApi(`/v1/leads?${new URLSearchParams(query)}`, undefined, signal).catch((error) => {
      fill(list, h("p", { class: "bad" }, error.message));
      throw error;
    });
    const { cursor: _, ...whole } = query;
    fill(list,
      h("p", { class: "quiet" }, say("threshold", number(threshold, 2))),
      table(say("leads"), [sorter("points", "score", whole), say("company"), say("stage"), say("intent"), sorter("time", "-updated", whole)],
        rows(found, query.pipeline)),
      h("p", {}, next ? h("a", { href: `#/leads?${new URLSearchParams({ ...whole, cursor: next })}` }, say("moreLeads")) : "", " ",
        h("button", { type: "button", onclick: () => save(whole, signal) }, say("saveCsv"))));
    return undefined;
  });
  return [form, list];
}

/** Saves all leads as a file. A link could not send the token, so the file is fetched. */
async function save(query, signal) {
  await attempt(async () => {
    const text = await callApi(`/v1/leads/export?${new URLSearchParams(query)}`, undefined, signal);
    const address = URL.createObjectURL(new Blob(["\ufeff", text.replace(/^\ufeff/, "")], { type: "text/csv" }));
    h("a", { href: address, download: "leads.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
}

/** The text with the evidence for extracted facts marked. */
const documentText = (text, found) =>
  h("pre", { class: "plain", tabindex: 0 },
    marked(text, found.filter(({ evidence }) => evidence).map(({ path, evidence }) => ({ ...evidence, name: path.slice(1) }))));

function draft({ task, text, model }) {
  const shown = h("pre", { class: "plain", tabindex: 0 }, text);
  const copy = () =>
    attempt(async () => {
      // Browsers give the clipboard only to pages of HTTPS and of this machine.
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else getSelection().selectAllChildren(shown);
      announce(say(navigator.clipboard ? "copied" : "selected"));
    });
  return h("section", { class: "card" },
    h("h2", {}, task, " ", h("span", { class: "badge" }, model ?? say("template"))),
    shown,
    h("button", { type: "button", onclick: copy }, say("copyDraft")));
}

const company = (about) =>
  h("section", { class: "card" },
    h("h2", {}, about.name),
    h("p", { class: "quiet" }, say("ofCompany", number(about.documents)), about.summarized_at_ms == null ? "" : ` · ${moment(about.summarized_at_ms)}`),
    about.summaries.map(({ text }) => h("p", { class: "plain" }, text)),
    table(say("leads"), [say("points"), say("document"), say("stage"), say("intent"), say("time")], rows(about.leads, about.pipeline)));

const value = (fact) => (typeof fact.value === "string" ? fact.value : JSON.stringify(fact.value));

export function lead(id, signal, parameters) {
  const all = h("div", {}, say("loading"));
  attempt(async () => {
    const found = await callApi(`/v1/leads/${encodeURIComponent(id)}?${parameters}`, undefined, signal).catch((error) => {
      fill(all, h("p", { class: "bad" }, error.message));
      throw error;
    });
    const own = { pipeline: found.pipeline };
    const percent = ({ confidence }) => (confidence == null ? "" : ` (${number(100 * confidence)} %)`);
    fill(all,
      h("h2", {}, nameOf(found)),
      h("p", {}, bar(found)),
      table(say("parts"), [say("name"), say("points"), say("formula")],
        found.parts.map((part) => [part.name, number(part.value, 2), h("code", {}, part.formula)])),
      descriptionList([
        [say("company"), found.company], [say("person"), found.person],
        ...found.labels.map((each) => [each.task, `${each.label}${percent(each)}`]),
        [say("time"), moment(found.updated_at_ms)], [say("document"), h("a", { href: `#/documents/${encodeURIComponent(id)}?${new URLSearchParams(own)}` }, id)],
      ]),
      table(say("facts"), [say("name"), say("value"), say("proof")],
        found.facts.filter((fact) => fact.value !== null).map((fact) => [fact.path.slice(1), [value(fact), percent(fact)],
          fact.grounded === false ? h("span", { class: "bad" }, say("notInDocument")) : fact.evidence ? say("marked") : ""])),
      h("h2", {}, say("document")), documentText(found.text, found.facts),
      found.drafts.map(draft),
      found.deliveries.length === 0 ? "" : table(say("deliveries"), [say("receiver"), say("state"), say("attempts"), say("reason"), say("time")],
        found.deliveries.map((each) => [each.webhook, say(each.state === "waiting" ? "underWay" : each.state), number(each.attempts), each.reason, moment(each.updated_at_ms)])),
      found.about ? company(found.about) : "");
  });
  return [h("p", {}, h("a", { href: "#/leads" }, say("back"))), all];
}
