// What pages are made of. Text from outside only ever becomes a text node or an attribute: there is no HTML to inject into.

import { say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

function put(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

/** Puts these in place of what the node has; lists are flattened, and what is nothing is left out. */
export function fill(node, ...children) {
  node.replaceChildren();
  put(node, {}, children);
}

/** What the service refuses, with its sentence and its code. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? problem.error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem.code ?? problem.error?.code;
  }
}

/** Asks the service. `body` makes it a POST of JSON. */
export async function ask(path, body, signal) {
  const headers = { accept: "application/json" };
  const token = sessionStorage.getItem("token");
  if (token) headers.authorization = `Bearer ${token}`;
  const options = { headers, signal };
  if (body !== undefined) {
    options.method = "POST";
    headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const text = await response.text();
  const json = response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
  if (!response.ok && path !== "/readyz") throw new Refusal(response.status, typeof json === "string" ? {} : json);
  return json;
}

/** Says something to everyone, those who cannot see the page included. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/** Does something and tells how it went. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") announce(say("failed", error.message));
    if (error.status === 401) window.dispatchEvent(new Event("unauthorized"));
    return undefined;
  }
}

/** Calls `step` now and then every `seconds` until the page is left. A hidden page rests. */
export function every(seconds, signal, step) {
  const turn = async () => {
    if (!document.hidden) await attempt(step);
    if (!signal.aborted) setTimeout(turn, seconds * 1000);
  };
  turn();
}

/** A table; `rows` are lists of cells. */
export const table = (caption, heads, rows) =>
  rows.length === 0
    ? h("p", { class: "quiet" }, say("nothing"))
    : h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
        h("table", {},
          h("caption", {}, caption),
          h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
          h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell ?? "")))))));

export const facts = (pairs) =>
  h("dl", {}, pairs.filter(([, value]) => value != null && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

export const field = (label, input, hint) => h("label", {}, h("span", {}, label), input, hint && h("small", {}, hint));

export const choice = (name, values, chosen) =>
  h("select", { name }, values.map(([value, text]) => h("option", { value, selected: value === chosen }, text ?? value)));

export const json = (value) => h("pre", { tabindex: 0 }, typeof value === "string" ? value : JSON.stringify(value, null, 2));
