import { History } from "../../src/alerts/history.ts";
import { stamper } from "../../src/alerts/stamp.ts";
import type { Event, EventDraft } from "../../src/model/event.ts";
import type { Why } from "../../src/model/verdict.ts";

/** A node as a page of it would show it: its status, and events as they come in a day. Deterministic. */

export const RUN = "page0000";
export const HOST = "worker-3.example";

/** What must come out as text, wherever it stands. */
export const HOSTILE = `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\u202e\u0007"'`;

const hash = "7d9f8c6b5";
const WORKLOADS = [
  ["shop", "checkout"],
  ["shop", "cart"],
  ["shop", "search"],
  ["billing", "invoices"],
  ["billing", "ledger"],
  ["ml", "trainer"],
] as const;

interface Kind {
  readonly to: string;
  readonly port: number;
  readonly application: string | null;
  readonly serverName?: string;
  readonly verdict: "allow" | "deny" | "would-deny";
  readonly why?: Why;
  readonly rule?: string;
  readonly clause?: NonNullable<Event["nearest"]>["clause"];
  readonly weight: number;
}
const KINDS: readonly Kind[] = [
  { to: "api.stripe.com", port: 443, application: "tls", verdict: "allow", rule: "stripe", weight: 5 },
  { to: "orders-db.example.com", port: 5432, application: "postgresql", verdict: "allow", rule: "orders-db", weight: 5 },
  { to: "events.kafka.example.com", port: 9093, application: "kafka", verdict: "allow", rule: "events", weight: 3 },
  { to: "api.stripe.com", port: 8443, application: null, verdict: "deny", why: "wrong-port", clause: "port", weight: 2 },
  {
    to: "cdn.example.com",
    port: 443,
    application: "tls",
    serverName: "paste.example.net",
    verdict: "deny",
    why: "wrong-server-name",
    clause: "server-name",
    weight: 2,
  },
  { to: "telemetry.vendor.example", port: 443, application: null, verdict: "would-deny", why: "no-rule", weight: 4 },
  { to: "pypi.org", port: 443, application: null, verdict: "would-deny", why: "no-rule", weight: 2 },
  { to: "", port: 22, application: null, verdict: "deny", why: "no-name", clause: "name", weight: 2 },
];

/** 32 bits, the same each time (xorshift). */
export function random(seed = 2463534242): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 2 ** 32;
  };
}

function pick<T extends { readonly weight: number }>(kinds: readonly T[], at: number): T {
  let left = at * kinds.reduce((sum, { weight }) => sum + weight, 0);
  return kinds.find(({ weight }) => (left -= weight) < 0) ?? (kinds[0] as T);
}

export function podOf([namespace, app]: readonly [string, string], n: number): NonNullable<Event["pod"]> {
  return {
    namespace,
    name: `${app}-${hash}-${["x7k2p", "m4q9z", "b8t5w"][n % 3]}`,
    labels: { app, "pod-template-hash": hash },
    serviceAccountName: app,
  };
}

export function draft(next: () => number): EventDraft {
  const workload = WORKLOADS[Math.floor(next() ** 1.5 * WORKLOADS.length)] as (typeof WORKLOADS)[number];
  const pod = podOf(workload, Math.floor(next() * 3));
  const policy = `${pod.namespace}/${workload[1]}`;
  const source = {
    address: `10.244.3.${2 + Math.floor(next() * 60)}`,
    port: 32_768 + Math.floor(next() * 20_000),
    interface: "cali1f2e3d4c5b6",
  };
  if (next() < 0.06) {
    return {
      type: "dns",
      verdict: "deny",
      mode: "Enforce",
      why: "name-not-allowed",
      pod,
      policies: [policy],
      destination: {
        address: "10.96.0.10",
        port: 53,
        protocol: "UDP",
        names: [`${Math.floor(next() * 40).toString(36)}mfzwizltoq.tunnel.example.net`],
      },
      source,
      message: "the query was answered with REFUSED",
    };
  }
  const kind = pick(KINDS, next());
  const { to, port, application, verdict } = kind;
  return {
    type: "connection",
    verdict,
    mode: verdict === "would-deny" ? "Monitor" : "Enforce",
    why: kind.why ?? null,
    pod,
    policy: kind.rule === undefined ? null : policy,
    rule: kind.rule ?? null,
    policies: ["guardrails", policy],
    nearest: kind.clause === undefined ? null : { policy, rule: "stripe", clause: kind.clause },
    destination: { address: `198.51.100.${10 + Math.floor(next() * 20)}`, port, protocol: "TCP", names: to === "" ? [] : [to] },
    source,
    evidence: {
      dns: to === "" ? [] : [{ name: to, via: "asked", fresh: true }],
      serverName: kind.serverName ?? (application === "tls" ? to : null),
      application,
      ja4: application === "tls" ? "t13d1516h2_8daaf6152771_b186095e22b6" : null,
    },
    message: `${to} :${port}/TCP: ${kind.why ?? "first use"}`,
    count: verdict === "allow" ? 1 : 1 + Math.floor(next() ** 6 * 40),
  };
}

/** Text of an attacker in every place that he can write to. */
export function hostileDraft(): EventDraft {
  return {
    type: "connection",
    verdict: "deny",
    mode: "Enforce",
    why: "wrong-identity",
    pod: { namespace: "evil", name: HOSTILE, labels: { [HOSTILE]: HOSTILE }, serviceAccountName: HOSTILE },
    policies: [HOSTILE],
    nearest: { policy: HOSTILE, rule: HOSTILE, clause: "identity" },
    destination: { address: HOSTILE, port: 443, protocol: "TCP", names: [HOSTILE] },
    source: { address: HOSTILE, port: 1, interface: HOSTILE },
    evidence: {
      dns: [{ name: HOSTILE, via: HOSTILE, fresh: false }],
      serverName: HOSTILE,
      application: HOSTILE,
      ja4: HOSTILE,
      fields: { user: HOSTILE },
    },
    message: HOSTILE,
  };
}

/** `count` events in the hours before `nowMs`. */
export function day(count: number, nowMs: number): { history: History; events: Event[] } {
  const history = new History();
  const stamp = stamper(RUN);
  const next = random();
  const events: Event[] = [];
  for (let i = 0; i < count; i++) {
    const ago = (count - i) * Math.min(900, (3 * 3_600_000) / count);
    const event = stamp(draft(next), Math.round(nowMs - ago));
    history.push(event);
    events.push(event);
  }
  return { history, events };
}

export function status(nowMs: number): Record<string, unknown> {
  const attachment = { kind: "routed", interface: "cali1f2e3d4c5b6" };
  const pods = WORKLOADS.flatMap((workload, i) =>
    [0, 1].map((n) => ({
      namespace: workload[0],
      name: podOf(workload, n).name,
      guarded: true,
      mode: i === 5 ? "Monitor" : "Enforce",
      enforced: !(i === 4 && n === 1),
      ...(i === 4 && n === 1 ? { why: "hostNetwork: its packets do not cross a veth" } : {}),
      policies: [`${workload[0]}/${workload[1]}`],
      attachment,
      bindings: 12 + i * 7,
      addresses: 9,
      ruleHits: { [`${workload[0]}/${workload[1]}/stripe`]: 40 + i, [`${workload[0]}/${workload[1]}/orders-db`]: 7 },
    })),
  );
  const policies = WORKLOADS.map(([namespace, name], i) => ({
    name: `${namespace}/${name}`,
    file: `configmap/${namespace}/${name}-egress`,
    valid: i !== 3,
    mode: i === 5 ? "Monitor" : "Enforce",
    inForce: true,
    errors:
      i === 3
        ? ["configmap/billing/invoices-egress:12:9: spec.egress[1].action: must be one of Accept, Deny, Pass (did you mean Accept?)"]
        : [],
  }));
  return {
    ready: true,
    mode: "Enforce",
    effectiveMode: "Enforce",
    selfTest: { state: "ok", why: null, warnings: [] },
    iptables: "nft",
    since: new Date(nowMs - 9 * 3_600_000).toISOString(),
    pods: [
      ...pods,
      { namespace: "kube-system", name: "coredns-668d6bf9bc-8w2xk", guarded: false, mode: null, enforced: false, policies: [], attachment },
    ],
    policies,
    problems: [],
    queues: { reply: { received: 10, dropped: 0 } },
    sets: {},
    counters: {},
    rules: { installed: true, repairs: 1 },
    alerts: { events: 0 },
    lastUpdate: null,
    inputs: [{ resource: "pods", synced: true, staleSeconds: 0.1, items: 13 }],
  };
}
