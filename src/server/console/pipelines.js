// Pipelines, each as a graph of its source, its tasks by level, and its sinks.

import { callApi, poll, fill, h, svg } from "./dom.js";
import { number, say } from "./translations.js";

const [WIDTH, HEIGHT, GAP_X, GAP_Y] = [150, 44, 60, 16];

function layout({ topic, tasks, sinks }) {
  const columns = [[{ name: topic, detail: say("source"), kind: "end" }]];
  for (const task of tasks) {
    (columns[task.level + 1] ??= []).push({ name: task.name, detail: [task.kind, task.model].filter(Boolean).join(" · "), kind: "task", task });
  }
  columns.push(sinks.map((sink) => ({ name: sink.name ?? sink.kind, detail: sink.kind, kind: "end" })));
  const rows = Math.max(...columns.map((column) => column.length));
  columns.forEach((column, x) => column.forEach((node, y) => {
    node.x = x * (WIDTH + GAP_X);
    node.y = (y + (rows - column.length) / 2) * (HEIGHT + GAP_Y);
  }));
  const byName = Object.fromEntries(columns.flat().filter((node) => node.task).map((node) => [node.name, node]));
  const edges = [];
  for (const node of Object.values(byName)) {
    const before = [...node.task.needs.map((name) => [name, "line"]), ...node.task.watches.map((name) => [name, "line dashed"])];
    if (before.length === 0) edges.push([columns[0][0], node, "line"]);
    for (const [name, kind] of before) if (byName[name]) edges.push([byName[name], node, kind]);
  }
  for (const sink of columns.at(-1)) for (const node of Object.values(byName)) edges.push([node, sink, "line faint"]);
  return { nodes: columns.flat(), edges, width: columns.length * (WIDTH + GAP_X) - GAP_X, height: rows * (HEIGHT + GAP_Y) - GAP_Y };
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function graph(pipeline) {
  const { nodes, edges, width, height } = layout(pipeline);
  const edge = ([from, to, kind]) => {
    const [x, y, u, v] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
    return svg("path", { d: `M${x} ${y} C${x + GAP_X / 2} ${y} ${u - GAP_X / 2} ${v} ${u} ${v}`, class: kind });
  };
  const node = ({ name, detail, kind, x, y, task }) =>
    svg("g", { class: `node ${kind}` },
      svg("title", {}, [name, detail, task?.when && say("when", task.when)].filter(Boolean).join(" — ")),
      svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8 }),
      svg("text", { x: x + 10, y: y + 19, class: "name" }, cut(name, 20)),
      svg("text", { x: x + 10, y: y + 35, class: "detail" }, cut(detail, 24)));
  return h("div", { class: "scroll", tabindex: 0 },
    svg("svg", { viewBox: `-2 -2 ${width + 4} ${height + 4}`, width: width + 4, height: height + 4, class: "graph", role: "img", "aria-label": say("graph", pipeline.name) },
      edges.map(edge), nodes.map(node)));
}

export function pipelines(signal) {
  const list = h("div", {}, say("loading"));
  poll(10, signal, async () => {
    const { pipelines: found } = await callApi("/v1/pipelines", undefined, signal);
    fill(list, ...found.map((pipeline) =>
      h("section", { class: "card" },
        h("h2", {}, pipeline.name, " ", h("span", { class: `badge ${pipeline.stopped ? "failed" : "running"}` }, say(pipeline.stopped ? "stopped" : "running"))),
        pipeline.reason && h("p", { class: "bad" }, pipeline.reason),
        h("p", { class: "quiet" }, say("reads", pipeline.topic), " · ", say("recordsToday"), ": ", number(pipeline.today.records), " · ",
          h("a", { href: `#/letters?pipeline=${encodeURIComponent(pipeline.name)}` }, `${say("deadToday")}: ${number(pipeline.today.dead_letters)}`)),
        graph(pipeline))));
  });
  return list;
}
