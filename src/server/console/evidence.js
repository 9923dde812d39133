// A document's text with the places that its outputs come from. Places are bytes of its UTF-8.

import { h } from "./page.js";

/** The text, cut at every place's ends; a part is marked with the names of all places that it lies in. */
export function evidence(text, places) {
  const [bytes, decoder] = [new TextEncoder().encode(text), new TextDecoder()];
  const sound = places.filter(({ start, end }) => start >= 0 && start < end && end <= bytes.length);
  const cuts = [...new Set([0, bytes.length, ...sound.flatMap(({ start, end }) => [start, end])])].sort((one, other) => one - other);
  return h("div", { class: "text", tabindex: 0 }, cuts.slice(1).map((end, index) => {
    const start = cuts[index];
    const part = decoder.decode(bytes.subarray(start, end));
    const names = sound.filter((place) => place.start <= start && end <= place.end).map(({ name }) => name);
    return names.length ? h("mark", { title: names.join(", ") }, part) : part;
  }));
}

/** Where an output says that the document says it: values of an extraction, sentences of a summary. */
export function placesOf({ task, details }) {
  const values = (details?.leaves ?? []).filter((leaf) => leaf.evidence)
    .map(({ path, evidence: { start, end } }) => ({ start, end, name: `${task}${path.replaceAll("/", ".")}` }));
  const sentences = (details?.spans ?? []).map(({ start, end }) => ({ start, end, name: task }));
  return [...values, ...sentences];
}
