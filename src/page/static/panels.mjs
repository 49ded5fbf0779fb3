// The tiles, what is wrong, what is new, and the policies.
import { $, h, setText, svg } from "./dom.mjs";
import { edgeText, linesOf } from "./picture.mjs";
import { ago, clock, number, plural, verdictOf, whole } from "./words.mjs";

const ROWS_MAX = 60;
const MINUTES = 60;

/** Guarded pods, those really judged, and the others with why. */
export function coverage(status) {
  const guarded = (status.pods ?? []).filter((pod) => pod.guarded);
  return { guarded: guarded.length, enforced: guarded.filter((pod) => pod.enforced).length, all: (status.pods ?? []).length };
}

/** Hits of each rule of a policy: as the agent keeps them, or what the pods of now have counted. */
export function rulesOf(status, policy) {
  if (Array.isArray(policy.rules)) return policy.rules;
  const hits = new Map();
  for (const pod of status.pods ?? [])
    for (const [key, count] of Object.entries(pod.ruleHits ?? {}))
      if (key.startsWith(`${policy.name}/`)) hits.set(key, (hits.get(key) ?? 0) + count);
  return [...hits].map(([key, count]) => ({ name: key.slice(policy.name.length + 1), hits: count }));
}

export const hitsOf = (rules) => rules.reduce((sum, rule) => sum + (rule.hits ?? 0), 0);
export const lastHitOf = (rules) =>
  rules.reduce((last, rule) => (rule.lastHit && (last === undefined || rule.lastHit > last) ? rule.lastHit : last), undefined);

/** What somebody must look at. */
export function warningsOf(status) {
  const said = [];
  const { selfTest } = status;
  if (status.mode !== status.effectiveMode)
    said.push(["deny", `Not what the policies ask for: mode ${status.mode}, in effect ${status.effectiveMode}.`]);
  if (!status.ready) said.push(["deny", "The agent is not ready."]);
  if (selfTest?.state === "failed") said.push(["deny", `NOT ENFORCING: ${selfTest.why}`]);
  if (selfTest?.state === "untested") said.push(["would-deny", `The self-test cannot be tried: ${selfTest.why}`]);
  for (const warning of selfTest?.warnings ?? []) said.push(["would-deny", warning]);
  if (status.kept) said.push(["would-deny", `An earlier state is enforced: ${status.kept}`]);
  for (const { resource, synced, error } of status.inputs ?? [])
    if (!synced || error) said.push(["would-deny", `${resource}: ${error ?? "not read yet"}`]);
  for (const problem of status.problems ?? []) said.push(["would-deny", problem]);
  for (const { name, failure } of status.alerts?.sinks ?? []) if (failure) said.push(["would-deny", `alert sink ${name}: ${failure}`]);
  return said.slice(0, 12);
}

export function showWarnings(status) {
  const said = warningsOf(status);
  const text = JSON.stringify(said);
  const box = $("warnings");
  if (box.dataset.said === text) return; // a live region speaks when it changes
  box.dataset.said = text;
  box.replaceChildren(
    ...said.map(([verdict, words]) =>
      h("p", { class: `v-${verdict}` }, h("span", { class: "icon", "aria-hidden": "true" }, verdict === "deny" ? "✕" : "△"), words),
    ),
  );
}

export function showMode(status, host) {
  const works = status.ready && status.mode === status.effectiveMode;
  const mode = $("mode");
  mode.className = `pill ${works ? (status.mode === "Enforce" ? "good" : "quiet") : "bad"}`;
  setText(
    mode,
    works ? `✓ ${status.mode === "None" ? "No policy" : status.mode}` : status.ready ? `✕ ${status.mode}: NOT IN EFFECT` : "✕ NOT READY",
  );
  setText($("host"), host);
  document.title = `${works ? "" : "✕ "}${host} · namegate`;
}

function tile(id, label, value, note, { tone = "", click, body } = {}) {
  const made = h(click === undefined ? "div" : "button", {
    class: `tile ${tone}`,
    id,
    ...(click === undefined ? {} : { type: "button", click }),
  });
  made.append(
    h("span", { class: "tile-label" }, label),
    h("span", { class: "tile-value" }, value),
    body ?? "",
    h("span", { class: "tile-note dim" }, note),
  );
  return made;
}

function spark(minutes) {
  const most = Math.max(1, ...minutes.map(({ deny, would }) => deny + would));
  const box = svg("svg", {
    class: "spark",
    viewBox: `0 0 ${MINUTES * 4} 28`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": "Denied and would-be denied per minute, last hour",
  });
  box.append(svg("path", { class: "base", d: `M0 27.5H${MINUTES * 4}` }));
  minutes.forEach(({ deny, would }, i) => {
    const tall = (n) => (n === 0 ? 0 : Math.max(2, (n / most) * 26));
    const [d, w] = [tall(deny), tall(would)];
    if (d > 0) box.append(svg("rect", { class: "deny", x: i * 4, y: 28 - d, width: 3, height: d }));
    if (w > 0) box.append(svg("rect", { class: "would-deny", x: i * 4, y: 28 - d - w, width: 3, height: w }));
  });
  return box;
}

/** `view`: { status, edges, minutes, fromMs, midnightMs }; `on`: { coverage, verdict(v), fresh }. */
export function showTiles({ status, edges, minutes, fromMs, midnightMs }, on) {
  const box = $("tiles");
  const focused = document.activeElement?.id;
  const sum = (key) => minutes.reduce((all, one) => all + one[key], 0);
  const made = [];
  const since =
    fromMs === undefined || fromMs < Date.now() - MINUTES * 60_000 ? "per minute" : `per minute; at least: events since ${clock(fromMs)}`;
  if (status !== undefined) {
    const { guarded, enforced, all } = coverage(status);
    const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span"));
    bar.firstChild.style.width = `${guarded === 0 ? 0 : (enforced / guarded) * 100}%`;
    made.push(
      tile(
        "t-coverage",
        "Pods enforced",
        `${number(enforced)} / ${number(guarded)}`,
        `${number(all)} on this node, ${number(guarded)} guarded`,
        {
          tone: enforced < guarded ? "bad" : "",
          click: on.coverage,
          body: bar,
        },
      ),
    );
  }
  made.push(
    tile("t-deny", "Denied, last hour", number(sum("deny")), since, {
      tone: sum("deny") > 0 ? "deny" : "",
      click: () => on.verdict("deny"),
      body: spark(minutes.map((m) => ({ ...m, would: 0 }))),
    }),
    tile("t-would", "Would be denied, last hour", number(sum("would")), since, {
      tone: sum("would") > 0 ? "would-deny" : "",
      click: () => on.verdict("would-deny"),
      body: spark(minutes.map((m) => ({ ...m, deny: 0 }))),
    }),
  );
  const fresh = edges.filter(({ firstMs }) => firstMs >= midnightMs);
  const bad = fresh.filter(({ verdict }) => verdict !== "allow").length;
  made.push(
    tile(
      "t-new",
      "New destinations today",
      number(fresh.length),
      bad === 0 ? "none of them denied" : `${number(bad)} of them denied or would be`,
      { click: on.fresh },
    ),
  );
  if (status !== undefined) {
    const names = (status.pods ?? []).reduce((all, pod) => all + (pod.bindings ?? 0), 0);
    made.push(tile("t-names", "Names learned", number(names), `since ${clock(status.since)}, ${ago(status.since)}`));
  }
  box.replaceChildren(...made);
  if (focused?.startsWith("t-")) $(focused)?.focus();
}

/** Rows that open something; the focus stays where it was. */
function rows(box, list, make, empty) {
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const made = list.slice(0, ROWS_MAX).map(make);
  if (list.length > ROWS_MAX) made.push(h("p", { class: "dim note" }, `and ${number(list.length - ROWS_MAX)} more`));
  box.replaceChildren(...(made.length === 0 ? [h("p", { class: "empty" }, empty)] : made));
  if (focused !== undefined) made.find((one) => one.dataset.key === focused)?.focus();
}

export function showNew(edges, sinceMs, midnightMs, open) {
  const fresh = edges.filter(({ firstMs }) => firstMs >= midnightMs).sort((a, b) => b.firstMs - a.firstMs);
  const lines = linesOf(fresh).sort((a, b) => b.firstMs - a.firstMs);
  setText($("new-count"), `${number(fresh.length)}${sinceMs > midnightMs ? ` · records began ${clock(sinceMs)}` : ""}`);
  const make = (edge) => {
    const { icon, word } = verdictOf(edge.verdict);
    const row = h(
      "button",
      { type: "button", class: `item v-${edge.verdict}`, title: edgeText(edge), click: () => open(edge) },
      h("span", { class: "icon", role: "img", "aria-label": word }, icon),
      h("span", { class: "dim time" }, clock(edge.firstMs)),
      h(
        "span",
        { class: "label" },
        h("span", { class: "dim" }, `${edge.namespace}/`),
        edge.workload,
        h("span", { class: "dim" }, " → "),
        h("strong", {}, edge.to),
        edge.members === undefined ? "" : h("span", { class: "dim" }, ` (${number(edge.members.length)})`),
      ),
    );
    row.dataset.key = `${edge.namespace}/${edge.workload}/${edge.to}`;
    return row;
  };
  rows($("new"), lines, make, "Nothing that was not seen before today.");
}

export function showPolicies(status, open) {
  const policies = [...(status.policies ?? [])].sort((a, b) => Number(a.valid) - Number(b.valid) || a.name.localeCompare(b.name));
  const invalid = policies.filter(({ valid }) => !valid).length;
  setText($("policies-count"), `${number(policies.length)}${invalid > 0 ? ` · ${number(invalid)} invalid` : ""}`);
  const make = (policy) => {
    const rules = rulesOf(status, policy);
    const last = lastHitOf(rules);
    const row = h(
      "button",
      { type: "button", class: `item policy ${policy.valid ? "" : "v-deny"}`, click: () => open(policy.name) },
      h("span", { class: "icon", role: "img", "aria-label": policy.valid ? "valid" : "invalid" }, policy.valid ? "✓" : "✕"),
      h(
        "span",
        { class: "label" },
        policy.name,
        policy.valid
          ? ""
          : h("span", { class: "dim" }, policy.inForce ? " invalid, the last good version is in force" : " invalid, not in force"),
      ),
      h("span", { class: "chip" }, policy.mode ?? "–"),
      h(
        "span",
        { class: "dim hits", title: last === undefined ? "" : `last hit ${whole(last)}` },
        `${plural(hitsOf(rules), "hit")}${last === undefined ? "" : `, ${ago(last)}`}`,
      ),
    );
    row.dataset.key = policy.name;
    return row;
  };
  rows($("policies"), policies, make, "No policy: every pod is left alone.");
}
