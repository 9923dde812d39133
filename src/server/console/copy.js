// Review of generated copy: the list, the versions of a document with failed checks and evidence, and decisions.

import { marked, rangeOf } from "./evidence.js";
import { announce, callApi, attempt, choice, descriptionList, field, fill, h, jsonBlock, table } from "./dom.js";
import { moment, number, say } from "./translations.js";

const STATES = ["review", "approved", "rejected", "superseded", "withdrawn"];
const CHECKS = {
  schema: "breaksSchema", banned: "bannedWord", claims: "unsupportedClaim", quoted: "notQuoted", grounded: "notStated", supported: "notSupported",
  url: "noAddress", unique: "notUnique",
};

const address = (copy) => `#/copy/${encodeURIComponent(copy.document_id)}?${new URLSearchParams({ pipeline: copy.pipeline })}`;
const headline = (content) => Object.values(content).find((value) => typeof value === "string") ?? "";
const author = (version) => version.created_by ?? say("thePipeline");
const failedCheck = (reason) => h("li", {}, h("strong", {}, say(CHECKS[reason.check])), " ", h("q", {}, reason.says), " ", h("span", { class: "quiet" }, reason.message));

/** Runs actions by key while the page is shown, unless the user is typing in a field. */
function onKeys(signal, actions) {
  const pressed = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const action = actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  };
  window.addEventListener("keydown", pressed, { signal });
}

export function copies(signal, parameters) {
  const list = h("div", {}, say("loading"));
  const state = parameters.get("state") ?? "review";
  const form = h("form", { class: "row", onchange: () => (location.hash = `#/copy?${new URLSearchParams(new FormData(form))}`) },
    field(say("state"), choice("state", STATES.map((name) => [name, say(name)]), state)));
  const load = (cursor) =>
    attempt(async () => {
      const query = new URLSearchParams({ state, ...(cursor && { cursor }) });
      const found = await callApi(`/v1/copy?${query}`, undefined, signal);
      fill(list,
        h("p", {}, say("inReview", number(found.in_review)), " ", h("small", {}, say("listKeys"))),
        found.copies.length === 0 ? h("p", { class: "quiet" }, say("nothing")) : h("ol", { class: "hits" }, found.copies.map((copy) =>
          h("li", { class: "card" },
            h("h2", {}, h("a", { href: address(copy) }, headline(copy.content))),
            h("p", { class: "quiet" }, [copy.document_id, copy.pipeline, `${say("version")} ${copy.version}`, author(copy),
              moment(copy.decided_ms ?? copy.created_ms)].join(" · ")),
            copy.reasons.length ? h("ul", { class: "bad" }, copy.reasons.map(failedCheck)) : h("p", { class: "good" }, say("passed"))))),
        found.next ? h("button", { type: "button", onclick: () => load(found.next) }, say("more")) : "");
    });
  const step = (by) => {
    const links = [...list.querySelectorAll("h2 a")];
    const at = links.indexOf(document.activeElement);
    links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
  };
  onKeys(signal, { j: () => step(1), k: () => step(-1) });
  load();
  return [form, list];
}

/** The ranges of a text that state facts. */
const factRanges = (text, path, traces) => traces.filter((trace) => trace.path === path).map(({ says }) => rangeOf(says, text));

const content = (version) =>
  descriptionList(Object.entries(version.content).map(([name, value]) =>
    [name, typeof value === "string" ? h("span", {}, marked(value, factRanges(value, `/${name}`, version.traces))) : jsonBlock(value)]));

function editor(view, version, done) {
  const rules = view.schema.properties ?? {};
  const inputs = Object.entries(version.content).map(([name, value]) => {
    const text = typeof value === "string";
    const most = text ? rules[name]?.maxLength : null;
    const input = h("textarea", { name, rows: text ? (most > 100 ? 3 : 1) : 8, spellcheck: text });
    input.value = text ? value : JSON.stringify(value, null, 2);
    const count = h("small", {});
    const recount = () => {
      if (!most) return;
      const length = [...input.value].length;
      count.textContent = say("ofCharacters", number(length), number(most));
      count.className = length > most ? "bad" : "";
    };
    input.addEventListener("input", recount);
    recount();
    return { name, text, input, count };
  });
  const save = (event) => {
    event.preventDefault();
    attempt(async () => {
      const written = Object.fromEntries(inputs.map(({ name, text, input }) => [name, text ? input.value : JSON.parse(input.value)]));
      await callApi(`/v1/copy/${encodeURIComponent(view.document_id)}/edit?${new URLSearchParams({ pipeline: view.pipeline })}`, { version: version.version, content: written });
      announce(say("edited"));
      done();
    });
  };
  return h("form", { class: "card", onsubmit: save },
    inputs.map(({ name, input, count }) => h("label", {}, h("span", {}, name), input, count)),
    h("p", { class: "buttons" }, h("button", {}, say("save")), " ", h("button", { type: "button", onclick: done }, say("back"))));
}

export function copy(id, signal, parameters) {
  const all = h("div", {}, say("loading"));
  const pipeline = parameters.get("pipeline") ?? "";
  const query = new URLSearchParams(pipeline && { pipeline });
  let view;
  let overruling = false;

  const decide = (action, body, message) =>
    attempt(async () => {
      await callApi(`/v1/copy/${encodeURIComponent(id)}/${action}?${query}`, { version: view.current.version, ...body });
      announce(message);
      await next();
    });
  const next = async () => {
    const { copies } = await callApi(`/v1/copy?${new URLSearchParams({ state: "review", limit: 2 })}`, undefined, signal);
    const other = copies.find((each) => each.document_id !== id || each.pipeline !== view.pipeline);
    if (other) location.hash = address(other);
    else location.hash = "#/copy";
  };
  const approve = () => {
    if (view?.current?.state !== "review") return;
    const despite = [...new Set(view.current.reasons.map((reason) => reason.check))];
    if (despite.length > 0 && !overruling) {
      overruling = true;
      announce(say("approveDespite", view.current.reasons.map((reason) => `${say(CHECKS[reason.check])}: ${reason.says}`).join(", ")));
      return;
    }
    decide("approve", { despite }, say("approvedNow"));
  };
  const reject = () => view?.current && decide("reject", {}, say("rejectedNow"));
  const edit = () => {
    if (!view?.current) return;
    const form = editor(view, view.current, refresh);
    fill(all, form);
    form.querySelector("textarea").focus();
  };
  const refresh = () =>
    attempt(async () => {
      overruling = false;
      view = await callApi(`/v1/copy/${encodeURIComponent(id)}?${query}`, undefined, signal).catch((error) => {
        fill(all, h("p", { class: "bad" }, error.message));
        throw error;
      });
      const { current, source } = view;
      fill(all,
        current && h("p", { class: "buttons" },
          current.state === "review" && h("button", { type: "button", onclick: approve }, `${say("approve")} (A)`), " ",
          h("button", { type: "button", onclick: reject }, `${say(current.state === "review" ? "reject" : "takeDown")} (R)`), " ",
          h("button", { type: "button", onclick: edit }, `${say("edit")} (E)`), " ",
          h("button", { type: "button", onclick: () => attempt(next) }, `${say("next")} (N)`)),
        current && (current.reasons.length ? h("ul", { class: "bad" }, current.reasons.map(failedCheck)) : h("p", { class: "good" }, say("passed"))),
        h("div", { class: "cards wide" },
          current && h("section", { class: "card" },
            h("h2", {}, headline(current.content), " ", h("span", { class: "badge" }, `${say(current.state)} ${current.version}`)),
            current.url && h("p", {}, h("code", {}, current.url)), content(current)),
          h("section", { class: "card" }, h("h2", {}, say("source"), " ", h("a", { href: `#/documents/${encodeURIComponent(id)}?${query}` }, id)),
            source ? h("p", { class: "source" }, marked(source.text, (current?.traces ?? []).map(({ start, end, says }) => ({ start, end, name: says })))) : h("p", { class: "bad" }, say("deleted")))),
        current && table(say("evidence"), [say("field"), say("fact"), say("statedIn")], current.traces.map((trace) =>
          [trace.path, trace.says, trace.field != null ? h("code", {}, trace.field) : say("inText", number(trace.start), number(trace.end))])),
        table(say("history"), [say("version"), say("state"), say("writtenBy"), say("copy"), say("time"), say("decidedBy"), say("note")],
          view.versions.map((version) => [String(version.version), say(version.state), author(version), headline(version.content),
            moment(version.created_ms), version.decided_by ?? "", version.note ?? ""])));
    });
  onKeys(signal, { a: approve, r: reject, e: edit, n: () => attempt(next) });
  refresh();
  return [h("p", {}, h("a", { href: "#/copy" }, say("back")), " ", h("small", {}, say("copyKeys"))), all];
}
