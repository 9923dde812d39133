// The shell: which page is shown, in which language and colours, and who is asking.

import { announce, h } from "./page.js";
import { choose, current, say } from "./words.js";
import { overview } from "./overview.js";
import { search } from "./search.js";
import { recommendations } from "./recommendations.js";
import { document as one } from "./document.js";
import { jobs, job } from "./jobs.js";
import { letters, letter } from "./letters.js";
import { leads, lead } from "./leads.js";
import { pipelines } from "./pipelines.js";
import { copies, copy } from "./copy.js";

const PAGES = [
  ["", "overview", overview],
  ["search", "search", search],
  ["recommendations", "recommendations", recommendations],
  ["documents", "document", null, one],
  ["jobs", "jobs", jobs, job],
  ["leads", "leads", leads, lead],
  ["letters", "letters", letters, letter],
  ["pipelines", "pipelines", pipelines],
  ["copy", "copy", copies, copy],
];

const main = document.getElementById("main");
let leave = new AbortController();

/** A part of the address; what is no encoding of anything stands for itself. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function show() {
  leave.abort();
  leave = new AbortController();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  const [, title, list, each] = PAGES.find(([page, , list]) => page === name && (list || rest[0])) ?? PAGES[0];
  document.documentElement.lang = current();
  document.title = `${say(title)} · Tidemill`;
  document.querySelector(".skip").textContent = say("skip");
  document.getElementById("nav").replaceChildren(...PAGES.filter(([, , list]) => list).map(([page, word]) =>
    h("li", {}, h("a", { href: `#/${page}`, "aria-current": page === name ? "page" : null }, say(word)))));
  announce("");
  const parameters = new URLSearchParams(query);
  const content = rest[0] && each ? each(rest[0], leave.signal, parameters) : list(leave.signal, parameters);
  main.replaceChildren(h("h1", {}, say(title)), ...[content].flat());
}

function signIn() {
  const input = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
  const enter = (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", input.value.trim());
    show();
  };
  leave.abort();
  main.replaceChildren(h("h1", {}, say("signIn")), h("form", { onsubmit: enter },
    h("p", {}, say("tokenAsk")), h("label", {}, h("span", {}, say("token")), input), h("button", {}, say("signIn"))));
  input.focus();
}

function paint() {
  const dark = localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark;
  document.getElementById("theme").textContent = say(dark === "dark" ? "light" : "dark");
  const other = current() === "ko" ? ["en", "English"] : ["ko", "한국어"];
  const button = document.getElementById("language");
  [button.lang, button.textContent] = other;
}

document.getElementById("theme").addEventListener("click", () => {
  localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  paint();
});
document.getElementById("language").addEventListener("click", (event) => {
  choose(event.target.lang);
  paint();
  show();
});
window.addEventListener("hashchange", () => {
  show();
  main.focus();
});
window.addEventListener("unauthorized", signIn);
paint();
show();
