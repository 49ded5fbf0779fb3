import { existsSync, mkdirSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Event } from "../model/event.ts";
import { type Client, clientIn } from "./demo-client.ts";
import { certificate, type Names, serve } from "./demo-servers.ts";
import { type Child, execute, until } from "./lab-process.ts";
import type { Lab } from "./lab-types.ts";

/** Where things are outside. Stripe and the paste site share an address, as tenants of a CDN do. */
export const OUTSIDE = {
  stripe: "198.51.100.10",
  stripe6: "2001:db8::10",
  images: "198.51.100.20",
  evil: "198.51.100.66",
  unnamed: "198.51.100.99",
  orders: "203.0.113.5",
} as const;
/** The cluster's DNS Service. */
export const DNS = { v4: "10.96.0.10", v6: "fd00:10:96::a", port: 5353 } as const;

const NAMES: Names = {
  "api.stripe.com": [OUTSIDE.stripe, OUTSIDE.stripe6],
  "paste.example.net": [OUTSIDE.stripe, OUTSIDE.stripe6],
  "images.example.org": [OUTSIDE.images],
  "evil.example.net": [OUTSIDE.evil],
  "orders-db.example.com": [OUTSIDE.orders],
};

const rule = (name: string, pattern: string, port: number): string[] => [
  `- name: ${name}`,
  "  action: Accept",
  `  to: [ { domainNames: [ "${pattern}" ] } ]`,
  `  ports: [ { protocol: TCP, port: ${port} } ]`,
];
/** Lines of YAML. */
const RULES = {
  stripe: [...rule("stripe", "*.stripe.com", 443), "  application: tls"],
  orders: rule("orders-db", "orders-db.example.com", 5432),
  images: rule("images", "*.example.org", 443),
} as const;

export interface Policy {
  readonly name: string;
  readonly mode: "Enforce" | "Monitor";
  readonly dns?: string;
  readonly rules: readonly (keyof typeof RULES)[];
}

export const POLICIES = {
  checkout: { name: "checkout", mode: "Enforce", dns: "{ queries: AllowedOnly }", rules: ["stripe", "orders"] },
  frontend: { name: "frontend", mode: "Enforce", rules: ["images"] },
  reports: { name: "reports", mode: "Monitor", rules: ["orders"] },
} as const satisfies Readonly<Record<string, Policy>>;
export type PodName = keyof typeof POLICIES;

/** The policy document; it selects the pods whose `app` label is its name. */
export function document({ name, mode, dns, rules }: Policy): string {
  return [
    "apiVersion: namegate.dev/v1alpha1",
    "kind: EgressPolicy",
    `metadata: { name: ${name} }`,
    "spec:",
    `  mode: ${mode}`,
    `  subject: { podSelector: { matchLabels: { app: ${name} } } }`,
    ...(dns === undefined ? [] : [`  dns: ${dns}`]),
    "  egress:",
    ...rules.flatMap((name) => RULES[name]).map((line) => `  ${line}`),
  ].join("\n");
}

/** The ConfigMap that holds it, as in a cluster. */
function manifest(policy: Policy): string {
  const head = [
    "apiVersion: v1",
    "kind: ConfigMap",
    "metadata:",
    `  name: ${policy.name}`,
    "  namespace: shop",
    "  labels: { namegate.dev/policy: 'true' }",
  ];
  const indented = document(policy).replaceAll(/^/gm, "    ");
  return [...head, "data:", `  ${policy.name}.yaml: |`, indented, ""].join("\n");
}

/** The lab with everything in it, and the agent that runs now. */
export interface World {
  readonly lab: Lab;
  readonly clients: Readonly<Record<PodName, Client>>;
  readonly policies: string;
  readonly socket: string;
  /** What to type to run namegate on this socket: `status`, `observe`. */
  readonly namegate: (command: string) => string;
  /** Of all agents so far, in order. */
  events(): Event[];
  /** The first event after `from` that matches; undefined when none comes in time. */
  event(from: number, match: (event: Event) => boolean): Promise<Event | undefined>;
  /** Writes a manifest into the folder that the agent watches, at once. */
  put(policy: Policy): void;
  /** Returns the milliseconds until it was ready. */
  startAgent(): Promise<number>;
  /** kill -9. */
  killAgent(): Promise<void>;
}

/** Rules used by packets that only the kernel saw are told when its counters are read: twice a second, less often on a busy machine. */
const EVENT_MS = 10_000;
const AGENT_MS = 20_000;
/** The command-line program that this file is a part of. */
export const MAIN = fileURLToPath(new URL("../main.js", import.meta.url));

/** Fills an empty lab. The agent is not started yet. */
export async function build(lab: Lab): Promise<World> {
  const coredns = await lab.addPod({ name: "coredns", namespace: "kube-system", listed: false });
  for (const [address, target] of [
    [DNS.v4, coredns.v4],
    [DNS.v6, coredns.v6],
  ] as const) {
    await lab.service({ address, port: 53, target: target as string, targetPort: DNS.port });
  }
  lab.setResolvers([DNS.v4, DNS.v6]);
  await lab.addPod({ name: "checkout" });
  await lab.addPod({ name: "reports" });
  await lab.addPod({ name: "frontend", kind: (await canBridge()) ? "bridge" : "routed" });
  await lab.addServer({ name: "internet", addresses: Object.values(OUTSIDE) });
  const tls = await certificate(lab, Object.keys(NAMES));
  const client = (pod: PodName): Promise<Client> => clientIn(lab, pod, tls.cert);
  const [checkout, frontend, reports] = await Promise.all([
    client("checkout"),
    client("frontend"),
    client("reports"),
    serve(lab, coredns.name, { role: "resolver", port: DNS.port, names: NAMES }),
    serve(lab, "internet", { role: "internet", ...tls }),
  ]);

  const policies = join(lab.dir, "policies");
  const socket = join(lab.dir, "agent.sock");
  const agents: Child[] = [];
  const events = (): Event[] =>
    agents.flatMap(({ out }) => out.flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Event] : [])));
  const world: World = {
    lab,
    clients: { checkout, frontend, reports },
    policies,
    socket,
    namegate: (command) => `${process.execPath} ${MAIN} ${command} --socket ${socket}`,
    events,
    event: (from, match) => until("event", () => events().slice(from).find(match), EVENT_MS).catch(() => undefined),
    put(policy) {
      const file = join(policies, `${policy.name}.yaml`);
      writeFileSync(`${file}.new`, manifest(policy));
      renameSync(`${file}.new`, file);
    },
    async startAgent() {
      const paths = ["--policies", policies, "--pods", lab.writePodsFile(), "--state", join(lab.dir, "state"), "--socket", socket];
      const start = performance.now();
      const agent = lab.spawn("node", [process.execPath, MAIN, "agent", ...paths, "--metrics", "off"]);
      agents.push(agent);
      await agent.line((line) => line.includes('"msg":"ready"'), { stream: "err", timeoutMs: AGENT_MS });
      return performance.now() - start;
    },
    async killAgent() {
      const agent = agents.at(-1);
      agent?.kill("SIGKILL");
      await agent?.exited;
    },
  };
  mkdirSync(policies);
  for (const policy of Object.values(POLICIES)) world.put(policy);
  return world;
}

/** Bridged packets cross netfilter only with br_netfilter, a module that may be missing. */
async function canBridge(): Promise<boolean> {
  await execute(["modprobe", "br_netfilter"]); // may fail: built in, or not there at all
  return existsSync("/proc/sys/net/bridge/bridge-nf-call-iptables");
}
