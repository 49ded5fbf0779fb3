import type { Explanation } from "../control/explain.ts";
import type { Suggestion } from "../policy/suggest.ts";
import type { RuleTrace } from "../policy/trace.ts";
import type { Case, Explained, HeardName, KnownName } from "../worker/explain.ts";
import { clauseText, eventText } from "./event-text.ts";
import { plain } from "./kubectl-merge.ts";
import { BOLD, DIM, GREEN, type Paint, RED, YELLOW } from "./terminal.ts";

const LABEL_WIDTH = 10;
const RULES_SHOWN = 6;
const NAMES_SHOWN = 6;
/** RFC 1035 §4.1.1. */
const RCODES: Readonly<Record<number, string>> = {
  0: "it has no address of that kind",
  2: "SERVFAIL",
  3: "NXDOMAIN, there is no such name",
  5: "REFUSED",
};

/** From DNS to the verdict, a step a line, and the rule to paste. */
export function explanationText(answer: Explanation, paint: Paint): string {
  const { event, replay, now, pod, to, suggestion } = answer;
  const shown = replay ?? now;
  const lines = [
    ...head(answer, paint),
    ...(event === null
      ? []
      : step("event", [`${event.time.slice(0, 10)} ${eventText(event, { paint, today: undefined, ids: true })}`, ...messageOf(answer)])),
    ...podLines(answer),
    ...(shown === null ? [] : walk(shown, answer, paint)),
    ...(event !== null && replay !== null && now !== null ? step("now", [verdictText(now.cases[0], paint)]) : []),
    ...(shown === null && event === null && pod !== null && to !== null ? unguarded(answer, paint) : []),
    ...suggestionLines(suggestion, paint),
  ];
  return `${lines.join("\n")}\n`;
}

function step(label: string, texts: readonly string[]): string[] {
  return texts.map((text, i) => `${(i === 0 ? label : "").padEnd(LABEL_WIDTH)}${text}`);
}

function head({ pod, to, event, now }: Explanation, paint: Paint): string[] {
  if (event !== null || pod === null || to === null) return [];
  const place = to.protocol.startsWith("ICMP")
    ? `${to.host} ${to.protocol} type ${to.port >> 8}`
    : `${bracketed(to.host)}:${to.port}/${to.protocol}`;
  const refused = now?.query?.action === "refuse";
  const verdict = refused ? paint(RED, "its query would be refused") : verdictText(now?.cases[0], paint);
  return [`${paint(BOLD, plain(`${pod.namespace}/${pod.name} → ${place}`))}: ${now === null ? "not judged" : verdict}`];
}

const bracketed = (host: string): string => (host.includes(":") ? `[${host}]` : host);

function messageOf({ event }: Explanation): string[] {
  return event === null || event.message === null ? [] : [plain(event.message)];
}

function podLines({ pod, event, to }: Explanation): string[] {
  if (pod === null)
    return event === null || event.pod === null || to === null
      ? []
      : step("pod", ["it is not on this node any more: only the event itself can be explained"]);
  const mode = pod.mode === null ? "no policy selects it" : `mode ${pod.mode}`;
  const state = !pod.guarded ? "" : pod.enforced ? ", enforced" : `, NOT ENFORCED: ${pod.why ?? "the agent is not ready"}`;
  return step("pod", [plain(`${pod.namespace}/${pod.name}: ${mode}${state}`)]);
}

function unguarded({ pod }: Explanation, paint: Paint): string[] {
  const why =
    pod?.mode === "Discover"
      ? "only Discover policies select it: its connections are listened to, and never judged"
      : pod?.guarded === true
        ? `it cannot be judged here: ${pod.why ?? "the packet thread does not know it yet; ask again"}`
        : "no policy selects it: it may go anywhere";
  return step("verdict", [paint(YELLOW, plain(why))]);
}

function walk(shown: Explained, { replay, event }: Explanation, paint: Paint): string[] {
  const [first, ...others] = shown.cases;
  if (first === undefined) return [];
  const once = replay === null ? "" : " (with the event's names and first bytes, and the policies of now)";
  return [
    ...step("DNS", [...queryLines(shown, event), ...shown.heard.flatMap(heardLines)]),
    ...step("binding", bindingLines(shown, first, event !== null && replay !== null ? (event.evidence?.dns ?? []) : undefined)),
    ...step("policies", [
      shown.policies.map(({ id, mode, tier }) => plain(`${id} (${mode}${tier === "Namespace" ? "" : `, ${tier}`})`)).join(", "),
    ]),
    ...(first.resolver ? [] : step("rules", ruleLines(shown, paint))),
    ...step("evidence", [evidenceText(first, shown)]),
    ...step("verdict", [`${refusedText(shown, paint)}${verdictText(first, paint)}${once}`, ...differs(first, event, replay)]),
    ...step("", otherLines(first, others, paint)),
    ...(shown.more > 0 ? [`${" ".repeat(LABEL_WIDTH)}and ${shown.more} more addresses, not looked at`] : []),
  ];
}

function otherLines(first: Case, others: readonly Case[], paint: Paint): string[] {
  const said = verdictText(first, paint);
  const same = others.filter((one) => verdictText(one, paint) === said);
  return [
    ...(same.length === 0 ? [] : [plain(`the same for ${same.map(({ address }) => address).join(", ")}`)]),
    ...others.filter((one) => !same.includes(one)).map((one) => `but ${plain(one.address)}: ${verdictText(one, paint)}`),
  ];
}

function refusedText({ query, cases: [first] }: Explained, paint: Paint): string {
  if (query?.action !== "refuse") return "";
  return `${paint(RED, `deny: its query is refused (${query.why})`)}; ${first?.assumed === true ? "if it had an address" : "with the address that it has"}: `;
}

function differs(first: Case, event: Explanation["event"], replay: Explained | null): string[] {
  if (event === null || replay === null) return [];
  const same = first.verdict === event.verdict && first.why === event.why;
  return same || first.verdict === "inspect"
    ? []
    : [
        `this is not what the event says (${plain(event.why ?? event.verdict)}): the policies have changed since, or what was read is not all in the event`,
      ];
}

function queryLines({ query, restrictsQueries, heard, cases }: Explained, event: Explanation["event"]): string[] {
  const assumed = cases[0]?.assumed === true;
  const lines: string[] = [];
  if (query?.action === "allow") lines.push(restrictsQueries ? "the policies let it ask for the name" : "it may ask for any name");
  if (query?.action === "refuse") {
    const by = query.rule === undefined ? "no rule has it, and queries are AllowedOnly" : `${query.policy}/${query.rule} denies it`;
    lines.push(plain(`a query for the name is answered with REFUSED: ${query.why} (${by})`));
  }
  const supposes = `what follows supposes that it does${event === null ? "" : ", and TCP port 443"}`;
  if (assumed && heard.some(({ answered }) => answered !== null))
    lines.push(`it has no address for the name any more; what follows supposes one`);
  else if (assumed) lines.push(`it has not resolved the name, as far as is known; ${supposes}`);
  if (lines.length === 0 && heard.length === 0) lines.push("nothing that it asked for lately leads there");
  return lines;
}

function heardLines({ name, answered, empty }: HeardName): string[] {
  const lines: string[] = [];
  if (answered !== null) {
    const chain = answered.chain.length === 0 ? "" : `, by the CNAMEs ${answered.chain.join(" → ")}`;
    lines.push(`${name}: answered ${ageText(answered.secondsAgo)} ago by ${answered.resolver}, TTL ${answered.ttl} s${chain}`);
  }
  if (empty !== null && (answered === null || empty.secondsAgo < answered.secondsAgo))
    lines.push(`${name}: ${ageText(empty.secondsAgo)} ago ${empty.resolver} said ${RCODES[empty.rcode] ?? `rcode ${empty.rcode}`}`);
  return lines.map(plain);
}

type SeenThen = readonly { readonly name: string; readonly via: string; readonly fresh: boolean }[];

function bindingLines({ lifetime }: Explained, first: Case, then: SeenThen | undefined): string[] {
  if (first.assumed) return ["none"];
  if (then !== undefined) {
    if (then.length === 0) return [plain(`${first.address}: it had resolved nothing to this address then`)];
    return then
      .slice(0, NAMES_SHOWN)
      .map(({ name, via, fresh }) =>
        plain(`${first.address} was ${name}${via === "cname" ? " (down a CNAME chain)" : ""} then, ${fresh ? "fresh" : "too old"}`),
      );
  }
  if (first.names.length === 0)
    return [
      plain(
        `${first.address}: it has resolved nothing to this address${first.neverByName ? ": no name opens such an address (DNS rebinding), only `networks` do" : ""}`,
      ),
    ];
  const more = first.names.length - NAMES_SHOWN;
  const settings = lifetime === null ? "" : ` (a reply lasts its TTL, at least ${lifetime.minTtl} s, and ${lifetime.grace} s more)`;
  const lines = first.names
    .slice(0, NAMES_SHOWN)
    .map((one, i) => plain(`${first.address} is ${one.name}${nameText(one)}${i === 0 ? settings : ""}`));
  return more > 0 ? [...lines, `and ${more} more names`] : lines;
}

function nameText({ via, secondsLeft, mentioned }: KnownName): string {
  const how = via === "cname" ? " (down a CNAME chain)" : "";
  const life = secondsLeft > 0 ? `, ${ageText(secondsLeft)} left` : `, too old since ${ageText(-secondsLeft)}`;
  return `${how}${life}${mentioned ? "" : ", in no rule"}`;
}

function ruleLines({ rules, rulesOf }: Explained, paint: Paint): string[] {
  const shown = rules.slice(0, RULES_SHOWN);
  const rest = rulesOf - shown.length;
  return [...shown.map((rule) => ruleText(rule, paint)), ...(rulesOf === 0 ? ["none"] : []), ...(rest > 0 ? [`and ${rest} more`] : [])];
}

function ruleText({ policy, rule, action, outcome, failed, wants }: RuleTrace, paint: Paint): string {
  const name = plain(`${policy}/${rule}`);
  const { names, networks, ports, application } = wants;
  const to = [...names, ...networks];
  const has = plain(
    `${action} ${to.length === 0 ? "any destination" : to.join(" ")}${ports.length === 0 ? "" : `, ${ports.join(", ")}`}${application === null ? "" : `, ${application}`}`,
  );
  switch (outcome) {
    case "decides":
      return `${paint(action === "Deny" ? RED : GREEN, "=>")} ${name} decides: ${has}`;
    case "passes":
      return `${paint(YELLOW, "->")} ${name} passes it on to the namespace's policies: ${has}`;
    case "not-asked":
      return paint(DIM, `-  ${name} is not asked any more: ${has}`);
    case "no":
      return `${paint(DIM, "x ")} ${name}: ${failedText(failed)}: ${has}`;
    default:
      return outcome satisfies never;
  }
}

const PARTS: Readonly<Record<string, string>> = { name: "names", network: "networks", port: "ports" };

function failedText(failed: RuleTrace["failed"]): string {
  if (failed.includes("stale")) return "the name matches, but the DNS answer is too old";
  const parts = failed.flatMap((clause) => PARTS[clause] ?? []);
  return parts.length > 0 ? `${parts.join(" and ")} do not match` : `the first bytes do not (${failed.join(", ")})`;
}

function evidenceText({ verdict, why, resolver, policy, rule }: Case, { rules }: Explained): string {
  const wanted = rules.find(({ outcome }) => outcome === "decides")?.wants.application ?? null;
  if (resolver) return "the queries in it are judged one by one";
  if (verdict === "inspect")
    return plain(
      `the first bytes are held and read: ${policy}/${rule} wants ${wanted ?? "to see them"}; --server-name and --application suppose some`,
    );
  if (verdict === "allow")
    return wanted === null ? "none wanted" : plain(`the first bytes agree with what ${policy}/${rule} wants: ${wanted}`);
  const read = rules.some(({ failed }) => failed.some((clause) => clause === why));
  return read && why !== "stale-dns"
    ? "the first bytes were read: see the rules"
    : "the first bytes do not matter: it is denied by its address and port";
}

function verdictText(one: Case | undefined, paint: Paint): string {
  if (one === undefined) return "none";
  const { verdict, why, policy, rule, nearest, resolver, mode } = one;
  const by = rule === null ? "" : plain(` by ${policy}/${rule}`);
  const near = nearest === null ? "" : plain(`; nearest: ${nearest.policy}/${nearest.rule}, ${clauseText(nearest.clause)}`);
  switch (verdict) {
    case "allow":
      return `${paint(GREEN, "allow")}${resolver ? ": a trusted resolver" : by}`;
    case "inspect":
      return `${paint(YELLOW, "allow")}${by}, ${mode === "Enforce" ? "if the first bytes agree" : "and Monitor looks at the first bytes"}`;
    case "deny":
      return `${paint(RED, `deny: ${plain(why ?? "")}`)}${by}${near}`;
    case "would-deny":
      return `${paint(YELLOW, `allow, and Monitor says would-deny: ${plain(why ?? "")}`)}${by}${near}`;
    default:
      return verdict satisfies never;
  }
}

function suggestionLines(suggestion: Suggestion | null, paint: Paint): string[] {
  if (suggestion === null || (suggestion.kind === "none" && suggestion.why === "nothing was denied")) return [];
  if (suggestion.kind === "none") return ["", `No rule to paste: ${plain(suggestion.why)}`];
  const where = suggestion.policy === undefined ? "a policy that selects the pod" : plain(suggestion.policy);
  const yaml = suggestion.yaml.trimEnd().split("\n");
  return [
    "",
    `To allow it, under spec.egress of ${where}:`,
    ...yaml.map((line) => paint(BOLD, plain(line))),
    ...suggestion.notes.map((note) => `# ${plain(note)}`),
  ];
}

function ageText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return whole < 120 ? `${whole} s` : whole < 7200 ? `${Math.round(whole / 60)} min` : `${Math.round(whole / 3600)} h`;
}
