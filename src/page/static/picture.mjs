// Who goes where: workloads on the left, destinations on the right, a line for each pair. What is denied comes first.
import { $, h, svg } from "./dom.mjs";
import { number, plural, verdictOf } from "./words.mjs";

const LINES = 22;
const LINES_ALL = 300;
const ROW = 30;
const URGENCY = { deny: 0, "would-deny": 1, allow: 2 };

export const keyOf = ({ namespace, workload, to }) => `${namespace}/${workload}\n${to}`;
export const countOf = ({ allow, deny, wouldDeny }) => allow + deny + wouldDeny;

export function edgeText(edge) {
  const said = [
    [edge.deny, "denied"],
    [edge.wouldDeny, "would be denied"],
    [edge.allow, "allowed"],
  ].flatMap(([n, word]) => (n > 0 ? `${word} ${number(n)}×` : []));
  return `${edge.namespace}/${edge.workload} → ${edge.to}: ${said.join(", ")}`;
}

/** Flat, the most urgent first, then the latest. */
export function edgesOf({ workloads }) {
  return workloads
    .flatMap(({ namespace, name, edges }) => edges.map((edge) => ({ ...edge, namespace, workload: name })))
    .sort((a, b) => URGENCY[a.verdict] - URGENCY[b.verdict] || b.lastMs - a.lastMs);
}

/** What stands for several: a domain whose names are many (a tunnel's, a bucket's), or a network whose addresses are. */
const SIBLINGS = 4;
function parentOf(to) {
  if (/^\d+\.\d+\.\d+\.\d+$/.test(to)) return `${to.slice(0, to.lastIndexOf("."))}.0/24`;
  if (to.includes(":")) return undefined;
  const rest = to.slice(to.indexOf(".") + 1);
  return to.includes(".") && rest.includes(".") ? `*.${rest}` : undefined;
}

/** Lines to draw: edges, and groups of edges of one workload to destinations of one parent. */
export function linesOf(edges) {
  const children = new Map();
  for (const { to } of edges) {
    const parent = parentOf(to);
    if (parent === undefined) continue;
    const known = children.get(parent);
    if (known === undefined) children.set(parent, new Set([to]));
    else known.add(to);
  }
  const lines = new Map();
  for (const edge of edges) {
    const parent = parentOf(edge.to);
    const group = parent !== undefined && children.get(parent).size >= SIBLINGS;
    const to = group ? parent : edge.to;
    const key = keyOf({ ...edge, to });
    const line = lines.get(key);
    if (line === undefined) lines.set(key, { ...edge, to, members: group ? [edge] : undefined });
    else {
      line.members.push(edge);
      for (const count of ["allow", "deny", "wouldDeny"]) line[count] += edge[count];
      line.lastMs = Math.max(line.lastMs, edge.lastMs);
    }
  }
  return [...lines.values()];
}

/** Some of each verdict, so that a flood of one kind hides no other; then whatever is most urgent. */
function fairly(lines, most) {
  const chosen = new Set();
  for (const [verdict, share] of [
    ["deny", 0.5],
    ["would-deny", 0.25],
    ["allow", 0.25],
  ])
    for (const line of lines.filter((one) => one.verdict === verdict).slice(0, Math.ceil(most * share))) chosen.add(line);
  for (const line of lines) if (chosen.size < most) chosen.add(line);
  return lines.filter((line) => chosen.has(line)).slice(0, most);
}

/** Nodes of one side with the worst of their lines. */
function nodes(edges, of) {
  const found = new Map();
  for (const edge of edges) {
    const key = of(edge);
    const node = found.get(key) ?? { key, verdict: edge.verdict, edges: [] };
    if (URGENCY[edge.verdict] < URGENCY[node.verdict]) node.verdict = edge.verdict;
    node.edges.push(edge);
    found.set(key, node);
  }
  return [...found.values()];
}

export class Picture {
  all = false;
  edges = [];
  selected;

  /** `on`: { edge(edge), workload(edge), destination(to, edges) }. */
  constructor(on) {
    this.box = $("picture");
    this.on = on;
  }

  set(edges) {
    this.edges = edges;
    this.draw();
  }

  draw() {
    const { box, edges } = this;
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
    if (edges.length === 0) {
      box.replaceChildren(
        h(
          "p",
          { class: "empty" },
          "No connection has been judged yet. The first use of a rule by a pod, and whatever is denied, shows here.",
        ),
      );
      return;
    }
    const lines = linesOf(edges);
    const shown = this.all ? lines.slice(0, LINES_ALL) : fairly(lines, LINES);
    const from = nodes(shown, ({ namespace, workload }) => `${namespace}/${workload}`);
    const place = new Map(from.map(({ key }, i) => [key, i]));
    const mean = ({ edges: list }) =>
      list.reduce((sum, { namespace, workload }) => sum + place.get(`${namespace}/${workload}`), 0) / list.length;
    const to = nodes(shown, (edge) => edge.to).sort((a, b) => mean(a) - mean(b) || URGENCY[a.verdict] - URGENCY[b.verdict]);
    const height = Math.max(from.length, to.length) * ROW;
    const y = (list) => new Map(list.map(({ key }, i) => [key, ((i + 0.5) * height) / list.length]));
    const [left, right] = [y(from), y(to)];
    const canvas = svg("svg", { viewBox: `0 0 100 ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.has = shown.some((line) => this.isSelected(line));
    // The worst on top.
    for (const edge of [...shown].reverse()) this.line(canvas, edge, left.get(`${edge.namespace}/${edge.workload}`), right.get(edge.to));
    const column = (side, list, at, make) => {
      const made = h("div", { class: `nodes ${side}`, role: "list", "aria-label": side === "from" ? "Workloads" : "Destinations" });
      for (const node of list) {
        const button = make(node);
        button.dataset.key = `${side}:${node.key}`;
        const item = h("div", { class: "node", role: "listitem" }, button);
        item.style.top = `${at.get(node.key) - ROW / 2}px`;
        made.append(item);
      }
      return made;
    };
    const graph = h(
      "div",
      { class: "graph" },
      column("from", from, left, (node) => this.source(node)),
      canvas,
      column("to", to, right, (node) => this.destination(node)),
    );
    graph.style.height = `${height}px`;
    const more = lines.length - shown.length;
    const foot =
      more > 0 || this.all
        ? h(
            "button",
            { class: "button more", type: "button", click: () => ((this.all = !this.all), this.draw()) },
            this.all ? "Show less" : `Show ${plural(more, "more pair")}`,
          )
        : undefined;
    box.replaceChildren(...[graph, foot].filter(Boolean));
    if (focused !== undefined) [...box.querySelectorAll("button")].find((one) => one.dataset.key === focused)?.focus();
  }

  /** Itself, or one of those that it stands for. */
  isSelected(line) {
    return keyOf(line) === this.selected || line.members?.some((edge) => keyOf(edge) === this.selected) === true;
  }

  line(canvas, edge, y1, y2) {
    const d = `M0 ${y1} C50 ${y1} 50 ${y2} 100 ${y2}`;
    const width = Math.min(4.5, 1.4 + Math.log10(countOf(edge)) * 0.8).toFixed(2);
    const on = this.selected === undefined || !this.has ? "" : this.isSelected(edge) ? " on" : " off";
    const group = svg("g", { class: `line v-${edge.verdict}${on}`, click: () => this.choose(edge) }, svg("title", {}, edgeText(edge)));
    group.append(svg("path", { class: "hit", d }), svg("path", { class: "ink", d, "stroke-width": width }));
    canvas.append(group);
  }

  source({ key, verdict, edges }) {
    const [namespace, name] = key.split("/");
    return h(
      "button",
      {
        type: "button",
        class: `v-${verdict}`,
        title: `${key}: ${plural(edges.length, "destination")}`,
        click: () => this.on.workload(edges[0]),
      },
      h("span", { class: "label" }, h("span", { class: "dim" }, `${namespace}/`), name),
    );
  }

  destination({ key, verdict, edges }) {
    const names = new Set(edges.flatMap(({ members }) => members?.map(({ to }) => to) ?? [])).size;
    const { icon, word } = verdictOf(verdict);
    const total = edges.filter((edge) => edge.verdict === verdict).reduce((sum, edge) => sum + countOf(edge), 0);
    return h(
      "button",
      {
        type: "button",
        class: `v-${verdict}`,
        title: edges.slice(0, 12).map(edgeText).join("\n"),
        "aria-label": `${key}: ${word}, ${plural(edges.length, "workload")}`,
        click: () => (edges.length === 1 ? this.choose(edges[0]) : this.on.destination(key, edges)),
      },
      h("span", { class: "icon", "aria-hidden": "true" }, icon),
      h("span", { class: "label" }, key, names > 0 ? h("span", { class: "dim" }, ` (${number(names)})`) : ""),
      h("span", { class: "dim times" }, total > 1 ? `×${number(total)}` : ""),
    );
  }

  choose(edge) {
    this.select(edge);
    this.on.edge(edge);
  }

  select(edge) {
    this.selected = edge === undefined ? undefined : keyOf(edge);
    this.draw();
  }
}
