// A click explains: an event, a workload's way to a destination, a policy, or which pods are covered.
import { $, h } from "./dom.mjs";
import { coverage, hitsOf, rulesOf } from "./panels.mjs";
import { addressText, ago, clauseText, clock, millis, nameOf, number, plural, podText, verdictOf, whole, whyText } from "./words.mjs";

const LIST_MAX = 200;

const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

function facts(pairs) {
  const list = h("dl");
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === false || value === "" || (Array.isArray(value) && value.length === 0)) continue;
    list.append(h("dt", {}, name), h("dd", {}, value));
  }
  return list;
}

function badge(verdict) {
  const { icon, word } = verdictOf(verdict);
  return h("span", { class: `badge v-${verdict}` }, h("span", { class: "icon", "aria-hidden": "true" }, icon), word);
}

function step(state, title, ...more) {
  const icon = { good: "✓", bad: "✕", none: "•" }[state];
  const word = { good: "yes: ", bad: "no: ", none: "" }[state];
  return h(
    "li",
    { class: `step ${state}` },
    h("span", { class: "icon", "aria-hidden": "true" }, icon),
    h("div", {}, h("span", { class: "hidden" }, word), h("strong", {}, title), ...more.map((one) => h("div", { class: "dim" }, one))),
  );
}

/** The way of a decision: DNS → policies → rule → first bytes → verdict. */
function walk(event) {
  const { evidence, nearest, policies, policy, rule, why, verdict } = event;
  const steps = [];
  const dns = evidence?.dns ?? [];
  if (event.type === "connection") {
    const fresh = dns.filter((one) => one.fresh);
    if (dns.length > 0)
      steps.push(
        step(
          fresh.length > 0 ? "good" : "bad",
          fresh.length > 0 ? "This pod resolved a name to this address" : "This pod resolved a name to this address, but too long ago",
          ...dns.slice(0, 8).map(({ name, via, fresh: ok }) => `${name} (${via}${ok ? "" : ", stale"})`),
        ),
      );
    else steps.push(step("none", "No name led this pod to this address"));
  }
  if (policies.length > 0)
    steps.push(
      step(
        "good",
        `${plural(policies.length, "policy", "policies")} select${policies.length === 1 ? "s" : ""} this pod`,
        policies.slice(0, 12).join(", "),
      ),
    );
  if (rule !== null)
    steps.push(
      step(verdict === "allow" ? "good" : "bad", `The rule ${policy}/${rule} decided`, verdict === "allow" ? undefined : whyText(why)),
    );
  else if (nearest)
    steps.push(
      step(
        "bad",
        `No rule allows it. Nearest: ${nearest.policy}/${nearest.rule}`,
        `Its clause “${nearest.clause}” failed: ${clauseText(nearest.clause)}`,
      ),
    );
  else if (verdict === "deny" || verdict === "would-deny") steps.push(step("bad", "No rule allows it, and none comes near", whyText(why)));
  if (evidence?.serverName || evidence?.application) {
    const wrong = ["wrong-server-name", "no-server-name", "wrong-protocol", "wrong-identity", "names-disagree", "ech", "evasion"].includes(
      why,
    );
    steps.push(
      step(
        wrong ? "bad" : "good",
        "The first bytes show",
        [evidence.application, evidence.upgrade && `then ${evidence.upgrade}`, evidence.version].filter(Boolean).join(" "),
        evidence.serverName && `server name ${evidence.serverName}`,
      ),
    );
  }
  steps.push(
    step(
      verdict === "allow" ? "good" : "bad",
      { deny: "Denied", "would-deny": "Let through; Enforce would deny it", allow: "Allowed" }[verdict],
    ),
  );
  return h("ol", { class: "walk" }, ...steps);
}

/** The rule to paste: text, or { kind, yaml, notes } as policy/suggest.ts makes it. */
function suggestion(given) {
  if (given === undefined || given === null) return undefined;
  const yaml = typeof given === "string" ? given : (given.yaml ?? given.rule);
  if (typeof yaml !== "string") return given.why ? section("Suggested rule", h("p", {}, `None: ${given.why}`)) : undefined;
  const copied = h("span", { class: "dim", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(yaml);
      copied.textContent = "copied";
    } catch {
      getSelection()?.selectAllChildren(code);
      copied.textContent = "selected; copy it with your keyboard";
    }
  };
  const code = h(
    "pre",
    { tabindex: "0" },
    h(
      "code",
      {},
      yaml
        .trimEnd()
        .split("\n")
        .map((line) => [line, h("br")]),
    ),
  );
  return section(
    "Rule that would allow it",
    given.policy ? h("p", { class: "dim" }, `into spec.egress of ${given.policy}`) : undefined,
    code,
    h("p", {}, h("button", { class: "button", type: "button", click: () => void copy() }, "Copy"), " ", copied),
    ...(given.notes ?? []).map((note) => h("p", { class: "dim" }, `△ ${note}`)),
  );
}

/** What the agent would suggest, when it has answered. */
function asked(answer) {
  const place = h("div", {});
  answer.then(
    (given) => place.replaceChildren(suggestion(given) ?? ""),
    () => undefined,
  );
  return place;
}

function eventBody(event, on) {
  const { pod, destination, source, evidence, folded } = event;
  const judged = event.verdict !== "info";
  const fields = Object.entries(evidence?.fields ?? {});
  const dim = (text) => h("span", { class: "dim" }, text);
  const more = [];
  if (pod) more.push(["Only this pod", { text: podText(pod) }]);
  if (nameOf(event) || destination?.address) more.push(["Only this destination", { text: nameOf(event) || destination.address }]);
  if (event.policy) more.push(["Only this policy", { policy: event.policy }]);
  if (event.why) more.push(["Only this why", { why: event.why }]);
  return [
    h("p", { class: "lead" }, badge(event.verdict), " ", whyText(event.why) ?? event.message ?? event.why ?? ""),
    judged ? section("How it was decided", walk(event)) : undefined,
    suggestion(event.suggestion) ?? (judged && event.verdict !== "allow" ? asked(on.suggest(event.id)) : undefined),
    section(
      "What happened",
      facts([
        ["When", [whole(event.time), dim(millis(event.time))]],
        [
          "Count",
          event.count > 1 ? `${number(event.count)}${folded ? `, from ${clock(folded.first)} to ${clock(folded.last)}` : ""}` : undefined,
        ],
        ["Why", event.why],
        ["Mode", event.mode],
        ["Pod", pod && podText(pod)],
        ["Service account", pod?.serviceAccountName],
        [
          "Labels",
          pod &&
            Object.entries(pod.labels ?? {})
              .slice(0, 40)
              .map(([key, value]) => h("span", { class: "chip" }, `${key}=${value}`)),
        ],
        ["Names", destination?.names?.slice(0, 40).map((name) => h("div", {}, name))],
        ["Address", addressText(destination)],
        ["From", source && `${source.address}:${source.port}${source.interface ? ` (${source.interface})` : ""}`],
        ["ALPN", evidence?.alpn?.join(", ")],
        ["ECH", evidence?.ech ? "offered" : undefined],
        ["JA4", evidence?.ja4 && h("code", {}, evidence.ja4)],
        ...fields.map(([key, value]) => [key, h("code", {}, value)]),
        ["Message", event.message],
        ["Id", h("code", {}, event.id)],
      ]),
    ),
    more.length > 0
      ? h(
          "p",
          { class: "actions" },
          ...more.map(([label, filter]) => h("button", { class: "button", type: "button", click: () => on.filter(filter) }, label)),
        )
      : undefined,
    h(
      "details",
      {},
      h("summary", {}, "The event as JSON"),
      h(
        "pre",
        { tabindex: "0" },
        h(
          "code",
          {},
          JSON.stringify(event, undefined, 2)
            .split("\n")
            .map((line) => [line, h("br")]),
        ),
      ),
    ),
  ];
}

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

function workloadBody({ name, edges }, on) {
  const item = (edge) =>
    h(
      "button",
      { type: "button", class: `item v-${edge.verdict}`, click: () => on.edge(edge) },
      h("span", { class: "icon", "aria-hidden": "true" }, verdictOf(edge.verdict).icon),
      h("span", { class: "label" }, edge.to),
      h("span", { class: "dim" }, edge.ports[0] ?? ""),
    );
  return [
    h("p", { class: "lead" }, `${plural(edges.length, "destination")} known.`),
    h(
      "p",
      { class: "actions" },
      h("button", { class: "button", type: "button", click: () => on.filter({ text: name }) }, "Show its verdicts"),
    ),
    h("div", { class: "rowlist" }, ...edges.slice(0, LIST_MAX).map(item)),
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
    if (edge.members !== undefined && edge.members.length > 1)
      return this.show(
        undefined,
        `${edge.namespace}/${edge.workload}`,
        edge.to,
        workloadBody({ name: `${edge.namespace}/${edge.workload}`, edges: edge.members }, this.on),
      );
    this.show(undefined, `${edge.namespace}/${edge.workload}`, edge.to, edgeBody(edge, this.on));
  }

  workload(workload) {
    this.show(undefined, workload.name, "", workloadBody(workload, this.on));
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
