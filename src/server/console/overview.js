// The state of the service: readiness, charts of its metrics, and totals of the last 24 hours.

import { callApi, poll, fill, h, svg } from "./dom.js";
import { number, say } from "./translations.js";

const SECONDS = 2;
const READINGS = 150;

/** Reads Prometheus text into [name, labels, value]. */
export function readMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match || line.startsWith("#")) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value]));
    samples.push([match[1], labels, Number(match[3])]);
  }
  return samples;
}

const sum = (samples, name) => samples.filter(([found]) => found === name).reduce((total, [, , value]) => total + value, 0);
const count = (samples, name) => samples.filter(([found]) => found === name).length;

const CHARTS = [
  { key: "recordsPerSecond", of: (now, then, seconds) => (sum(now, "tidemill_records_total") - sum(then, "tidemill_records_total")) / seconds },
  { key: "lag", of: (now) => sum(now, "tidemill_lag_records") },
  {
    key: "busy", unit: "%", most: 100,
    of: (now, then, seconds) => {
      const busy = sum(now, "tidemill_device_busy_seconds_total") - sum(then, "tidemill_device_busy_seconds_total");
      return (100 * busy) / seconds / Math.max(1, count(now, "tidemill_device_busy_seconds_total"));
    },
  },
  { key: "tokensPerSecond", of: (now, then, seconds) => (sum(now, "tidemill_tokens_total") - sum(then, "tidemill_tokens_total")) / seconds },
];

function line(values, most) {
  const top = Math.max(most ?? 0, ...values, 1e-9);
  const points = values.map((value, place) => `${(300 * (place + READINGS - values.length)) / (READINGS - 1)},${60 - (56 * value) / top}`);
  return svg("svg", { viewBox: "0 0 300 62", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("polyline", { points: points.join(" "), class: "line" }));
}

export function overview(signal) {
  const values = CHARTS.map(() => []);
  const charts = CHARTS.map(({ key }) =>
    h("section", { class: "card" }, h("h2", {}, say(key)), h("p", { class: "figure" }, "…"), h("div", { class: "chart" })));
  const status = h("p", { class: "status" }, say("loading"));
  const totals = h("div", { class: "cards" });
  let last;
  poll(SECONDS, signal, async () => {
    const [text, health] = await Promise.all([callApi("/metrics", undefined, signal), callApi("/readyz", undefined, signal)]);
    const reading = { at: performance.now(), samples: readMetrics(text) };
    const problems = Object.entries(health.problems ?? {});
    status.className = `status ${problems.length ? "bad" : "good"}`;
    fill(status, problems.length ? `${say("unready")}: ` : say("ready"), problems.map(([what, reason]) => `${what}: ${reason}`).join("; "));
    if (last) {
      CHARTS.forEach(({ of, unit, most }, place) => {
        const value = Math.max(0, of(reading.samples, last.samples, (reading.at - last.at) / 1000));
        values[place] = [...values[place], value].slice(-READINGS);
        const [, figure, chart] = charts[place].children;
        figure.textContent = `${number(value, value < 10 ? 1 : 0)}${unit ?? ""}`;
        fill(chart, line(values[place], most));
      });
    } else {
      charts.forEach((card) => (card.children[1].textContent = say("waiting")));
    }
    last = reading;
  });
  poll(15, signal, async () => {
    const { pipelines, price_per_device_hour: price } = await callApi("/v1/pipelines", undefined, signal);
    const total = (field) => pipelines.reduce((sum, pipeline) => sum + pipeline.today[field], 0);
    const card = (key, value) => h("section", { class: "card" }, h("h2", {}, say(key)), h("p", { class: "figure" }, value));
    fill(totals,
      card("recordsToday", number(total("records"))),
      card("deadToday", number(total("dead_letters"))),
      card("deviceToday", `${number(total("device_seconds"), 1)} s`),
      card("costToday", price == null ? say("noPrice") : number((total("device_seconds") / 3600) * price, 4)));
  });
  return [status, h("div", { class: "cards wide" }, charts), totals];
}
