// Texts with the places marked that something comes from. Places are bytes of their UTF-8.

import { h } from "./page.js";

const encoder = new TextEncoder();

/** The text, cut at every place's ends; a part is marked with the names of all places that it lies in. */
export function marked(text, places) {
  const [bytes, decoder] = [encoder.encode(text), new TextDecoder("utf-8", { ignoreBOM: true })];
  const sound = places.filter(({ start, end }) => start >= 0 && start < end && end <= bytes.length);
  const cuts = [...new Set([0, bytes.length, ...sound.flatMap(({ start, end }) => [start, end])])].sort((one, other) => one - other);
  return cuts.slice(1).map((end, index) => {
    const start = cuts[index];
    const part = decoder.decode(bytes.subarray(start, end));
    const around = sound.filter((place) => place.start <= start && end <= place.end);
    return around.length ? h("mark", { title: around.map(({ name }) => name).filter(Boolean).join(", ") || null }, part) : part;
  });
}

/** Where the text says these words first; no place of it where it does not. */
export function placeOf(words, text) {
  const before = text.split(words, 1)[0];
  const [start, length] = [encoder.encode(before).length, encoder.encode(words).length];
  return { start, end: start + length };
}

/** Where an output says that the document says it: values of an extraction, sentences of a summary. */
export function placesOf({ task, details }) {
  const values = (details?.leaves ?? []).filter((leaf) => leaf.evidence)
    .map(({ path, evidence: { start, end } }) => ({ start, end, name: `${task}${path.replaceAll("/", ".")}` }));
  const sentences = (details?.spans ?? []).map(({ start, end }) => ({ start, end, name: task }));
  return [...values, ...sentences];
}
