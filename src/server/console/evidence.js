// Texts with marked ranges. Ranges are positions in bytes of UTF-8.

import { h } from "./dom.js";

const encoder = new TextEncoder();

/** The text, split at the ends of all ranges. Each part is marked with the names of all ranges that contain it. */
export function marked(text, ranges) {
  const [bytes, decoder] = [encoder.encode(text), new TextDecoder("utf-8", { ignoreBOM: true })];
  const valid = ranges.filter(({ start, end }) => start >= 0 && start < end && end <= bytes.length);
  const cuts = [...new Set([0, bytes.length, ...valid.flatMap(({ start, end }) => [start, end])])].sort((one, other) => one - other);
  return cuts.slice(1).map((end, index) => {
    const start = cuts[index];
    const part = decoder.decode(bytes.subarray(start, end));
    const around = valid.filter((range) => range.start <= start && end <= range.end);
    return around.length ? h("mark", { title: around.map(({ name }) => name).filter(Boolean).join(", ") || null }, part) : part;
  });
}

/** The range of the first occurrence of the words. Without one, the range is outside of the text. */
export function rangeOf(words, text) {
  const before = text.split(words, 1)[0];
  const [start, length] = [encoder.encode(before).length, encoder.encode(words).length];
  return { start, end: start + length };
}

/** The ranges of the document that support an output: values of an extraction, sentences of a summary. */
export function rangesOf({ task, details }) {
  const values = (details?.leaves ?? []).filter((leaf) => leaf.evidence)
    .map(({ path, evidence: { start, end } }) => ({ start, end, name: `${task}${path.replaceAll("/", ".")}` }));
  const sentences = (details?.spans ?? []).map(({ start, end }) => ({ start, end, name: task }));
  return [...values, ...sentences];
}
