import type { TestContext } from "node:test";
import type { PodOptions } from "../../src/cli/lab-types.ts";
import { ACCEPTED, type AgentStart, putPolicy, policy, startAgent, type TestAgent } from "./agent.ts";
import { type Client, clientIn } from "./client.ts";
import { type DnsServer, dnsServer, type NameAnswer } from "./dns-server.ts";
import { clusterDns, LAB_COMMANDS, type Lab, labFor } from "./lab.ts";
import { type Listen, type Servers, serve } from "./servers.ts";

/** What a test of the shop needs. */
export const SHOP_NEEDS = { root: true, addon: true, commands: [...LAB_COMMANDS, "ipset", "ping"] } as const;

/** The addresses of the shop's only server, `out`. */
export const OUT = {
  stripe: "198.51.100.10",
  evil: "198.51.100.11",
  bank: "198.51.100.12",
  far: "203.0.113.10",
  stripe6: "2001:db8::10",
  evil6: "2001:db8::11",
} as const;

export const NAMES: Readonly<Record<string, NameAnswer>> = {
  "api.stripe.com": { A: [OUT.stripe], AAAA: [OUT.stripe6] },
  "evil.example.net": { A: [OUT.evil], AAAA: [OUT.evil6] },
  "bank.example.com": { A: [OUT.bank] },
  "far.example.com": { A: [OUT.far] },
};

const LISTEN: readonly Listen[] = [
  { kind: "echo", port: 443 },
  { kind: "echo", port: 5432 },
  { kind: "echo", port: 8080 },
  { kind: "echo", port: 8085 },
  { kind: "udp-echo", port: 7000 },
  { kind: "udp-echo", port: 443 },
];

/** `checkout` may speak HTTPS to Stripe. */
export const STRIPE = {
  name: "stripe",
  action: "Accept",
  to: [{ domainNames: ["*.stripe.com"] }],
  ports: [{ protocol: "TCP", port: 443 }],
};
export const CHECKOUT = { mode: "Enforce", subject: { podSelector: { matchLabels: { app: "checkout" } } }, egress: [STRIPE] };

/** A lab with cluster DNS, one server outside, pods and an agent. */
export interface Shop {
  readonly lab: Lab;
  readonly dns: DnsServer;
  readonly dnsAddress: { readonly v4: string; readonly v6: string };
  readonly out: Servers;
  readonly iptables: "nft" | "legacy";
  /** The agent that runs now. */
  agent: TestAgent;
  /** Starts an agent (the next one) and makes it `agent`. */
  start(options?: AgentStart): Promise<TestAgent>;
  /** The client of a pod, one for the whole test. */
  client(pod: string): Promise<Client>;
  /** Writes a policy and returns when the agent says that it is in force (in the kernel). */
  put(name: string, spec: unknown, options?: { namespace?: string; kind?: string }): Promise<void>;
  /** Removes a policy, and waits for the agent to say so. */
  drop(name: string): Promise<void>;
}

export interface ShopOptions {
  readonly pods?: readonly PodOptions[];
  readonly iptables?: "nft" | "legacy";
  readonly names?: Readonly<Record<string, NameAnswer>>;
  readonly listen?: readonly Listen[];
  readonly policies?: Readonly<Record<string, unknown>>;
  readonly args?: readonly string[];
  /** false: no agent yet. */
  readonly agent?: boolean;
}

export async function shop(t: Pick<TestContext, "after">, options: ShopOptions = {}): Promise<Shop> {
  const iptables = options.iptables ?? "nft";
  const lab = await labFor(t, { iptables: `iptables-${iptables}` });
  const { pod, port, v4, v6 } = await clusterDns(lab);
  for (const one of options.pods ?? [{ name: "checkout" }]) await lab.addPod(one);
  await lab.addServer({ name: "out", addresses: Object.values(OUT) });
  const dns = await dnsServer(lab, pod, { port, names: options.names ?? NAMES });
  const out = await serve(lab, "out", options.listen ?? LISTEN);
  for (const [name, spec] of Object.entries(options.policies ?? {})) putPolicy(lab, `${name}.yaml`, policy(name, spec));
  const clients = new Map<string, Promise<Client>>();
  const made: Shop = {
    lab,
    dns,
    dnsAddress: { v4, v6 },
    out,
    iptables,
    agent: undefined as unknown as TestAgent,
    start: async (given = {}) => {
      made.agent = await startAgent(lab, { iptables, args: options.args ?? [], ...given });
      return made.agent;
    },
    client: (name) => {
      const client = clients.get(name) ?? clientIn(lab, name);
      clients.set(name, client);
      return client;
    },
    put: async (name, spec, given = {}) => {
      const from = made.agent.events().length;
      putPolicy(lab, `${name}.yaml`, policy(name, spec, given));
      const id = given.kind === "ClusterEgressPolicy" ? name : `${given.namespace ?? "shop"}/${name}`;
      await made.agent.event(`${id} accepted`, (e) => ACCEPTED.has(e.why) && e.policy === id, { from });
    },
    drop: async (name) => {
      const from = made.agent.events().length;
      putPolicy(lab, `${name}.yaml`, undefined);
      await made.agent.event(`${name} removed`, (e) => e.why === "policy-removed" && e.policy?.endsWith(name) === true, { from });
    },
  };
  if (options.agent !== false) await made.start();
  return made;
}
