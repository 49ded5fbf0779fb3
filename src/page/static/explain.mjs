// A click explains: an event, a workload's way to a destination, a policy, or which pods are covered.
import { $, h } from "./dom.mjs";
import { badge, eventBody, facts, section } from "./event.mjs";
import { coverage, hitsOf, rulesOf } from "./panels.mjs";
import { countOf, edgeText } from "./picture.mjs";
import { addressText, ago, nameOf, number, plural, podText, verdictOf, whole, whyText } from "./words.mjs";

const LIST_MAX = 200;

function edgeBody(edge, on) {
  const latest = on.latest(edge);
  return [
    h("p", { class: "lead" }, badge(edge.verdict), " ", whyText(edge.why) ?? ""),
    facts([
      ["Workload", `${edge.namespace}/${edge.workload}`],
      ["Destination", edge.to],
      ["Ports", edge.ports.join(", ")],
      ["First seen", `${whole(edge.firstMs)} (${ago(edge.firstMs)})`],
      ["Last event", `${whole(edge.lastMs)} (${ago(edge.lastMs)})`],
      ["Denied", edge.deny > 0 && number(edge.deny)],
      ["Would be denied", edge.wouldDeny > 0 && number(edge.wouldDeny)],
      ["Allowed", edge.allow > 0 && `${number(edge.allow)} (first uses of a rule; later ones are only counted)`],
    ]),
    h(
      "p",
      { class: "actions" },
      h(
        "button",
        { class: "button", type: "button", click: () => on.filter({ text: `${edge.namespace}/${edge.workload} ${edge.to}` }) },
        "Show its verdicts",
      ),
    ),
    latest === undefined
      ? undefined
      : h("details", { open: true }, h("summary", {}, "Its latest verdict, explained"), ...eventBody(latest, on).filter(Boolean)),
  ];
}

/** Several pairs; `label` says of each what the heading does not. */
function pairsBody(what, text, pairs, label, on) {
  const item = (edge) =>
    h(
      "button",
      { type: "button", class: `item v-${edge.verdict}`, title: edgeText(edge), click: () => on.edge(edge) },
      h("span", { class: "icon", role: "img", "aria-label": verdictOf(edge.verdict).word }, verdictOf(edge.verdict).icon),
      h("span", { class: "label" }, label(edge)),
      h("span", { class: "dim" }, `${edge.ports[0] ?? ""} ×${number(countOf(edge))}`),
    );
  return [
    h("p", { class: "lead" }, what),
    h("p", { class: "actions" }, h("button", { class: "button", type: "button", click: () => on.filter({ text }) }, "Show the verdicts")),
    h("div", { class: "rowlist" }, pairs.slice(0, LIST_MAX).map(item)),
  ];
}

/** Pass rules are not counted: their hits are null. */
function ruleTable(rules) {
  const head = ["Rule", "Action", "Hits", "Last hit"].map((title) => h("th", { scope: "col" }, title));
  const row = ({ name, action, hits, lastHit, observedSince }) =>
    h(
      "tr",
      {},
      h("td", {}, name ?? "?"),
      h("td", {}, action ?? ""),
      h("td", { title: observedSince ? `counted since ${whole(observedSince)}` : undefined }, hits === null ? "–" : number(hits)),
      h("td", { title: whole(lastHit) }, lastHit ? ago(lastHit) : hits === 0 ? "never" : "–"),
    );
  return h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rules.slice(0, LIST_MAX).map(row)));
}

function policyBody(policy, status, on) {
  const rules = rulesOf(status, policy);
  const pods = (status.pods ?? []).filter((pod) => pod.policies?.includes(policy.name));
  const unused = rules.filter((rule) => rule.hits === 0).length;
  return [
    h(
      "p",
      { class: "lead" },
      policy.valid
        ? "✓ Valid and in force."
        : policy.inForce
          ? "✕ Invalid; its last good version is in force."
          : "✕ Invalid, and no version of it is in force.",
    ),
    policy.errors?.length > 0
      ? section("Problems", h("ul", {}, ...policy.errors.map((error) => h("li", {}, h("code", {}, error)))))
      : undefined,
    facts([
      ["Mode", policy.mode],
      ["File", policy.file],
      ["Selects", plural(pods.length, "pod")],
      ["Hits", `${number(hitsOf(rules))}${unused > 0 ? `; ${plural(unused, "rule")} never used` : ""}`],
    ]),
    rules.length > 0 ? section("Rules", ruleTable(rules)) : undefined,
    h(
      "p",
      { class: "actions" },
      h("button", { class: "button", type: "button", click: () => on.filter({ policy: policy.name }) }, "Show its verdicts"),
    ),
    pods.length > 0
      ? section(
          "Pods",
          h(
            "ul",
            {},
            ...pods
              .slice(0, LIST_MAX)
              .map((pod) =>
                h(
                  "li",
                  {},
                  `${pod.namespace}/${pod.name}`,
                  pod.enforced || !pod.guarded
                    ? ""
                    : h("span", { class: "v-deny" }, ` ✕ not enforced: ${pod.why ?? "the agent is not ready"}`),
                ),
              ),
          ),
        )
      : undefined,
  ];
}

function coverageBody(status) {
  const { guarded, enforced, all } = coverage(status);
  const pods = status.pods ?? [];
  const line = (pod) =>
    h(
      "li",
      {},
      `${pod.namespace}/${pod.name}`,
      h("span", { class: "dim" }, ` ${[pod.mode, pod.attachment?.interface].filter(Boolean).join(", ")}`),
      pod.why ? h("div", { class: "v-deny" }, `✕ ${pod.why}`) : "",
    );
  const group = (title, list) =>
    list.length === 0 ? undefined : section(`${title} (${number(list.length)})`, h("ul", {}, ...list.slice(0, LIST_MAX).map(line)));
  return [
    h("p", { class: "lead" }, `${number(enforced)} of ${plural(guarded, "guarded pod")} enforced; ${number(all)} on this node.`),
    facts([
      ["Self-test", `${status.selfTest?.state ?? "unknown"}${status.selfTest?.why ? `: ${status.selfTest.why}` : ""}`],
      ["Rules", `iptables-${status.iptables}; restored ${number(status.rules?.repairs)}×`],
      ["Agent since", `${whole(status.since)} (${ago(status.since)})`],
      ["Dropped by full queues", number(Object.values(status.queues ?? {}).reduce((sum, queue) => sum + (queue.dropped ?? 0), 0))],
    ]),
    group(
      "Guarded, not enforced",
      pods.filter((pod) => pod.guarded && !pod.enforced),
    ),
    group(
      "Enforced",
      pods.filter((pod) => pod.guarded && pod.enforced),
    ),
    group(
      "Not selected by a policy",
      pods.filter((pod) => !pod.guarded),
    ),
  ];
}

/** `on`: { filter(f), latest(edge), edge(edge), suggest(id), closed() }. */
export class Detail {
  constructor(on) {
    this.on = on;
    this.box = $("detail");
    addEventListener("keydown", (e) => {
      if (e.key === "Escape" && !this.box.hidden) this.close();
    });
  }

  event(event) {
    this.show(
      event.id,
      podText(event.pod) || event.policy || "agent",
      nameOf(event) || addressText(event.destination),
      eventBody(event, this.on),
    );
  }

  /** Of the picture: a workload's way to one destination, or to several of a kind. */
  edge(edge) {
    const { namespace, workload, to, members = [] } = edge;
    const name = `${namespace}/${workload}`;
    const several = plural(members.length, "destination");
    this.show(
      undefined,
      name,
      to,
      members.length > 1 ? pairsBody(several, name, members, (one) => one.to, this.on) : edgeBody(edge, this.on),
    );
  }

  workload({ namespace, workload }, edges) {
    const name = `${namespace}/${workload}`;
    this.show(
      undefined,
      name,
      "",
      pairsBody(plural(edges.length, "destination"), name, edges, ({ to }) => to, this.on),
    );
  }

  destination(to, edges) {
    const label = (one) => `${one.namespace}/${one.workload}${one.to === to ? "" : ` → ${one.to}`}`;
    const pairs = edges.flatMap((edge) => edge.members ?? [edge]);
    this.show(undefined, to, "", pairsBody(plural(edges.length, "workload"), to.replace(/^\*|0\/24$/, ""), pairs, label, this.on));
  }

  policy(policy, status) {
    this.show(undefined, policy.name, "", policyBody(policy, status, this.on));
  }

  coverage(status) {
    this.show(undefined, "Coverage", "", coverageBody(status));
  }

  show(id, title, to, body) {
    if (this.box.hidden) this.back = document.activeElement;
    this.id = id;
    const close = h("button", { class: "button", type: "button", "aria-label": "Close (Escape)", click: () => this.close() }, "✕");
    const heading = h("h2", { id: "detail-title" }, title, to === "" ? "" : h("span", { class: "dim" }, " → "), to);
    this.box.replaceChildren(
      h("div", { class: "panel-head" }, heading, h("span", { class: "spring" }), close),
      h("div", { class: "detail-body" }, ...body.filter(Boolean)),
    );
    this.box.hidden = false;
    this.box.lastChild.scrollTop = 0;
    document.body.classList.add("explaining");
    // Who walks through the list with the arrow keys stays there.
    if (document.activeElement !== $("list")) this.box.focus({ preventScroll: true });
  }

  get open() {
    return !this.box.hidden;
  }

  close() {
    this.box.hidden = true;
    document.body.classList.remove("explaining");
    this.on.closed();
    if (this.back?.isConnected) this.back.focus({ preventScroll: true });
    else $("list").focus({ preventScroll: true });
  }
}
