// An event, explained: how it was decided, the rule that would allow it, and all that it says.
import { h } from "./dom.mjs";
import { addressText, clauseText, clock, millis, nameOf, number, plural, podText, verdictOf, whole, whyText } from "./words.mjs";

export const section = (title, ...children) => h("section", {}, h("h3", {}, title), ...children);

export function facts(pairs) {
  const list = h("dl");
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === false || value === "" || (Array.isArray(value) && value.length === 0)) continue;
    list.append(h("dt", {}, name), h("dd", {}, value));
  }
  return list;
}

export function badge(verdict) {
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

export function eventBody(event, on) {
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
        ["Changed", event.change?.what?.slice(0, 40).map((what) => h("div", {}, what))],
        ["By", event.change && [event.change.by, event.change.source].filter(Boolean).join(", ")],
        [
          "Limit",
          event.exceeded &&
            `${event.exceeded.limit}: ${event.exceeded.found}, at most ${event.exceeded.most}; below ${event.exceeded.domain}`,
        ],
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
