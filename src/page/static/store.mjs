// The latest events and those of them that the filters let through. Bounded; no DOM here.

const EVENTS_MAX = 10_000;
/** Removed at once, so that the cost of removing is paid seldom. */
const SLACK = 500;

const NO_FILTER = { verdicts: [], text: "", namespace: "", policy: "", why: "" };

function haystack(event) {
  const { pod, destination, evidence, nearest } = event;
  return [
    pod && `${pod.namespace}/${pod.name}`,
    pod?.serviceAccountName,
    ...(destination?.names ?? []),
    destination?.address && `${destination.address}:${destination.port}/${destination.protocol}`,
    event.policy,
    event.rule,
    nearest && `${nearest.policy}/${nearest.rule}`,
    event.why,
    event.type,
    evidence?.serverName,
    evidence?.application,
    evidence?.ja4,
    event.message,
  ]
    .filter(Boolean)
    .join("\n")
    .toLowerCase();
}

export class Store {
  /** Oldest first. */
  entries = [];
  /** Those that the filters let through, oldest first. */
  shown = [];
  filter = { ...NO_FILTER };
  namespaces = new Set();
  policies = new Set();
  whys = new Set();
  counts = { deny: 0, "would-deny": 0, allow: 0, info: 0 };
  missed = 0;

  /** Returns how many of the new ones are shown. */
  push(events) {
    let added = 0;
    for (const event of events) {
      const entry = { event, text: haystack(event), atMs: Date.parse(event.time) };
      this.entries.push(entry);
      this.counts[event.verdict] = (this.counts[event.verdict] ?? 0) + 1;
      this.learn(event);
      if (!this.passes(entry)) continue;
      this.shown.push(entry);
      added++;
    }
    if (this.entries.length > EVENTS_MAX + SLACK) this.trim();
    return added;
  }

  learn({ pod, policies, policy, why }) {
    if (pod) remember(this.namespaces, pod.namespace);
    for (const one of policies ?? []) remember(this.policies, one);
    remember(this.policies, policy);
    remember(this.whys, why);
  }

  trim() {
    const gone = this.entries.splice(0, this.entries.length - EVENTS_MAX);
    const dropped = new Set(gone);
    for (const { event } of gone) this.counts[event.verdict]--;
    this.shown = this.shown.filter((entry) => !dropped.has(entry));
  }

  passes({ event, text }) {
    const { verdicts, namespace, policy, why, words } = this.filter;
    if (verdicts.length > 0 && !verdicts.includes(event.verdict)) return false;
    if (namespace !== "" && event.pod?.namespace !== namespace) return false;
    if (policy !== "" && event.policy !== policy && !event.policies?.includes(policy)) return false;
    if (why !== "" && event.why !== why) return false;
    return words === undefined || words.every((word) => text.includes(word));
  }

  set(filter) {
    this.filter = { ...this.filter, ...filter };
    const words = this.filter.text.toLowerCase().split(/\s+/).filter(Boolean);
    this.filter.words = words.length === 0 ? undefined : words;
    this.shown = this.entries.filter((entry) => this.passes(entry));
  }

  get filtered() {
    const { verdicts, text, namespace, policy, why } = this.filter;
    return verdicts.length > 0 || text !== "" || namespace !== "" || policy !== "" || why !== "";
  }

  clear() {
    this.set(NO_FILTER);
  }

  /** The latest event of a workload's way to a destination. */
  latest(matches) {
    return this.entries.findLast(({ event }) => matches(event))?.event;
  }

  /** Events before this time are not all here; undefined: they are. */
  get fromMs() {
    return this.entries.length >= EVENTS_MAX || this.missed > 0 ? this.entries[0]?.atMs : undefined;
  }

  /** Denied and would-be denied by minute, the last `minutes`, oldest first. */
  minutes(minutes, nowMs) {
    const made = Array.from({ length: minutes }, () => ({ deny: 0, would: 0 }));
    const from = nowMs - minutes * 60_000;
    for (let i = this.entries.length - 1; i >= 0; i--) {
      const { event, atMs } = this.entries[i];
      if (atMs < from) break;
      const slot = made[Math.min(minutes - 1, Math.floor((atMs - from) / 60_000))];
      if (event.verdict === "deny") slot.deny += event.count;
      else if (event.verdict === "would-deny") slot.would += event.count;
    }
    return made;
  }
}

const CHOICES_MAX = 500;
function remember(set, value) {
  if (value && set.size < CHOICES_MAX) set.add(value);
}

/** Filters in the address, so that a view can be kept and sent. */
export function toHash({ verdicts, text, namespace, policy, why }) {
  const given = new URLSearchParams();
  if (verdicts.length > 0) given.set("v", verdicts.join(","));
  for (const [key, value] of Object.entries({ q: text, ns: namespace, policy, why })) if (value !== "") given.set(key, value);
  return given.toString();
}

export function fromHash(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const verdicts = (given.get("v") ?? "").split(",").filter((one) => ["deny", "would-deny", "allow", "info"].includes(one));
  const get = (key) => (given.get(key) ?? "").slice(0, 300);
  return { verdicts, text: get("q"), namespace: get("ns"), policy: get("policy"), why: get("why") };
}
