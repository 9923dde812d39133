// The frame of the console: navigation, language, theme and sign-in.

import { announce, h } from "./dom.js";
import { chooseLanguage, currentLanguage, say } from "./translations.js";
import { overview } from "./overview.js";
import { search } from "./search.js";
import { recommendations } from "./recommendations.js";
import { documentPage } from "./document.js";
import { jobs, job } from "./jobs.js";
import { deadLetters, deadLetter } from "./dead_letters.js";
import { leads, lead } from "./leads.js";
import { pipelines } from "./pipelines.js";
import { copies, copy } from "./copy.js";

// The first part of the address, the key of the title, the page of the list, and the page of one entry.
const PAGES = [
  ["", "overview", overview],
  ["search", "search", search],
  ["recommendations", "recommendations", recommendations],
  ["documents", "document", null, documentPage],
  ["jobs", "jobs", jobs, job],
  ["leads", "leads", leads, lead],
  ["letters", "deadLetters", deadLetters, deadLetter],
  ["pipelines", "pipelines", pipelines],
  ["copy", "copy", copies, copy],
];

const main = document.getElementById("main");
let pageAbort = new AbortController();

/** A decoded part of the address, or the part itself if it is not valid percent-encoding. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function show() {
  pageAbort.abort();
  pageAbort = new AbortController();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decoded);
  const [, title, list, each] = PAGES.find(([page, , list]) => page === name && (list || rest[0])) ?? PAGES[0];
  document.documentElement.lang = currentLanguage();
  document.title = `${say(title)} · Tidemill`;
  document.querySelector(".skip").textContent = say("skip");
  document.getElementById("nav").replaceChildren(...PAGES.filter(([, , list]) => list).map(([page, title]) =>
    h("li", {}, h("a", { href: `#/${page}`, "aria-current": page === name ? "page" : null }, say(title)))));
  announce("");
  const parameters = new URLSearchParams(query);
  const content = rest[0] && each ? each(rest[0], pageAbort.signal, parameters) : list(pageAbort.signal, parameters);
  main.replaceChildren(h("h1", {}, say(title)), ...[content].flat());
}

function signIn() {
  const input = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true });
  const enter = (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", input.value.trim());
    show();
  };
  pageAbort.abort();
  main.replaceChildren(h("h1", {}, say("signIn")), h("form", { onsubmit: enter },
    h("p", {}, say("tokenRequired")), h("label", {}, h("span", {}, say("token")), input), h("button", {}, say("signIn"))));
  input.focus();
}

function showSettings() {
  const theme = localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = say(theme === "dark" ? "light" : "dark");
  const other = currentLanguage() === "ko" ? ["en", "English"] : ["ko", "한국어"];
  const button = document.getElementById("language");
  [button.lang, button.textContent] = other;
}

document.getElementById("theme").addEventListener("click", () => {
  localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  showSettings();
});
document.getElementById("language").addEventListener("click", (event) => {
  chooseLanguage(event.target.lang);
  showSettings();
  show();
});
window.addEventListener("hashchange", () => {
  show();
  main.focus();
});
window.addEventListener("unauthorized", signIn);
showSettings();
show();
