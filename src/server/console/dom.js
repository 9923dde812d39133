// Helpers for the DOM and the API. Text from outside becomes only text nodes and attributes, never HTML.

import { say } from "./translations.js";

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/** Replaces the children of a node. Lists are flattened; null and false are left out. */
export function fill(node, ...children) {
  node.replaceChildren();
  build(node, {}, children);
}

/** An error response of the API. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? problem.error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = problem.code ?? problem.error?.code;
  }
}

/** Sends a request to the API. With `body`, it is a POST with JSON. */
export async function callApi(path, body, signal) {
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
  if (!response.ok && path !== "/readyz") throw new ApiError(response.status, typeof json === "string" ? {} : json);
  return json;
}

/** Shows a message, which screen readers read aloud. */
export function announce(text) {
  document.getElementById("message").textContent = text;
}

/** Runs an action and shows its error, if it fails. */
export async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") announce(say("failed", error.message));
    if (error.status === 401) window.dispatchEvent(new Event("unauthorized"));
    return undefined;
  }
}

/** Runs `step` now and then every `seconds`, until the user leaves the page. While the page is hidden, it does not run. */
export function poll(seconds, signal, step) {
  const run = async () => {
    if (!document.hidden) await attempt(step);
    if (!signal.aborted) setTimeout(run, seconds * 1000);
  };
  run();
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

/** A description list of names and values, without empty values. */
export const descriptionList = (pairs) =>
  h("dl", {}, pairs.filter(([, value]) => value != null && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

export const field = (label, input, hint) => h("label", {}, h("span", {}, label), input, hint && h("small", {}, hint));

export const choice = (name, values, chosen) =>
  h("select", { name }, values.map(([value, text]) => h("option", { value, selected: value === chosen }, text ?? value)));

export const jsonBlock = (value) => h("pre", { tabindex: 0 }, typeof value === "string" ? value : JSON.stringify(value, null, 2));
