import { createLab } from "../../src/cli/lab.ts";
import { LAB_COMMANDS } from "../../test/support/lab.ts";
import { missing } from "../../test/support/need.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { policy, putPolicy, startAgent, type TestAgent } from "../../test/support/agent.ts";
import { clusterDns } from "../../test/support/lab.ts";
import { serving } from "./load.ts";

/** The port of the server `out`, at any of its addresses. */
export const PORT = 443;
/** The ClusterIPs of three resolvers in the pod `coredns`, each port 53: the responder of load.c, and two for dnsmasq. */
export const RESPONDER = "10.96.0.12";
export const RESPONDER_PORT = 5300;

/** What the pods of a benchmark may do: TCP to port 443 of every name of the responder's. */
export const POLICY = policy("bench", {
  mode: "Enforce",
  subject: { podSelector: {} },
  egress: [{ name: "bench", action: "Accept", to: [{ domainNames: ["*.bench.test"] }], ports: [{ protocol: "TCP", port: PORT }] }],
});

/** TLS to one port, whose ClientHello names one of the names of the responder or `serverName`. */
export function tlsPolicy(serverName: string, port: number): string {
  return policy("bench-tls", {
    mode: "Enforce",
    subject: { podSelector: {} },
    egress: [
      {
        name: "tls",
        action: "Accept",
        to: [{ domainNames: ["*.bench.test", serverName] }],
        ports: [{ protocol: "TCP", port }],
        application: "tls",
      },
    ],
  });
}

/** Every node of this run, so that one that is ended early leaves nothing. */
const labs = new Set<Lab>();
process.once("SIGTERM", () => void Promise.allSettled([...labs].map((lab) => lab.close())).finally(() => process.exit(1)));

/**
 * One node as the benchmarks want it: the pods `client` and `other`, cluster DNS (DNATed by a service, so conntrack works
 * as on any node with kube-proxy), and a server `out` that answers at all of 198.18.0.0/15.
 */
export async function benchNode(): Promise<Lab> {
  const lacking = missing({ root: true, addon: true, commands: [...LAB_COMMANDS, "gcc"] });
  if (lacking !== undefined) throw new Error(`benchmarks: ${lacking}`);
  const lab = await createLab();
  labs.add(lab);
  try {
    const dns = await clusterDns(lab);
    const coredns = lab.pods[0]?.v4 as string;
    await lab.service({ address: RESPONDER, port: 53, target: coredns, targetPort: RESPONDER_PORT });
    lab.setResolvers([dns.v4, RESPONDER]);
    await serving(lab, dns.pod, "answer", RESPONDER_PORT);
    await lab.addPod({ name: "client" });
    await lab.addPod({ name: "other" });
    const out = await lab.addServer({ name: "out", addresses: ["198.51.100.10"] });
    await lab.run("out", ["ip", "route", "add", "local", "198.18.0.0/15", "dev", "lo"]);
    await lab.run("node", ["ip", "route", "add", "198.18.0.0/15", "via", "192.0.2.2", "dev", out.interface]);
    await serving(lab, "out", "serve", PORT);
    return lab;
  } catch (error) {
    await lab.close();
    throw error;
  }
}

/**
 * What kubelet and kube-proxy (iptables mode) have in mangle and filter of every node, beside nat: the chains that a
 * forwarded packet passes anyway.
 */
const KUBE_PROXY = `*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`;

export async function kubeProxy(lab: Lab): Promise<void> {
  const file = lab.file("kube-proxy.rules", KUBE_PROXY);
  await lab.run("node", ["iptables-nft-restore", "--noflush", file]);
}

export interface Pair {
  /** No namegate at all. */
  readonly plain: Lab;
  /** The same with the agent. */
  readonly guarded: Lab;
  readonly agent: TestAgent;
}

/** A node for as long as it is used. */
async function withNode<T>(make: () => Promise<Lab>, use: (lab: Lab) => Promise<T>): Promise<T> {
  const lab = await make();
  try {
    return await use(lab);
  } finally {
    await lab.close();
  }
}

/** Two equal nodes at once, one without and one with the agent, so that rounds on them can take turns. */
export function withPair<T>(run: (pair: Pair) => Promise<T>, args: readonly string[] = []): Promise<T> {
  return withNode(benchNode, (plain) => withGuarded((guarded, agent) => run({ plain, guarded, agent }), { args }));
}

/**
 * The hooks that our rules need, with one rule each that never matches (mangle PREROUTING, filter FORWARD, security FORWARD):
 * the floor of whatever is enforced there with iptables.
 */
async function hooksNode(): Promise<Lab> {
  const lab = await benchNode();
  const rule = "-m connmark --mark 0x3040/0x3040 -j RETURN";
  const places = { mangle: "PREROUTING", filter: "FORWARD", security: "FORWARD" };
  const text = Object.entries(places).flatMap(([table, chain]) => [`*${table}`, `-A ${chain} ${rule}`, "COMMIT"]);
  await lab.run("node", ["iptables-nft-restore", "--noflush", lab.file("hooks.rules", `${text.join("\n")}\n`)]);
  return lab;
}

export interface Trio extends Pair {
  /** No namegate, but its three hooks. */
  readonly hooks: Lab;
}

/**
 * Equal nodes differ by a few percent whatever their rules are (two without namegate by 3 %, in one run). So what is about a
 * few percent is measured on `count` trios of nodes, each made anew, in an order that turns round.
 */
export async function onTrios<K extends string, T>(
  count: number,
  run: (trio: Trio) => Promise<Record<K, T[]>>,
  prepare: (lab: Lab) => Promise<void> = async () => undefined,
): Promise<Record<K, T[]>> {
  const all: Partial<Record<K, T[]>> = {};
  const node = (make: () => Promise<Lab>, use: (lab: Lab) => Promise<Record<K, T[]>>): Promise<Record<K, T[]>> =>
    withNode(make, async (lab) => {
      await prepare(lab);
      return use(lab);
    });
  for (let i = 0; i < count; i++) {
    const results =
      i % 2 === 0
        ? await node(benchNode, (plain) =>
            node(hooksNode, (hooks) => withGuarded((guarded, agent) => run({ plain, hooks, guarded, agent }), { prepare })),
          )
        : await withGuarded(
            (guarded, agent) => node(hooksNode, (hooks) => node(benchNode, (plain) => run({ plain, hooks, guarded, agent }))),
            { prepare },
          );
    for (const [name, list] of Object.entries(results) as [K, T[]][]) (all[name] ??= []).push(...list);
  }
  return all as Record<K, T[]>;
}

/** One node with the agent. */
export function withGuarded<T>(
  run: (lab: Lab, agent: TestAgent) => Promise<T>,
  { prepare, args = [] }: { readonly prepare?: ((lab: Lab) => Promise<void>) | undefined; readonly args?: readonly string[] } = {},
): Promise<T> {
  return withNode(benchNode, async (lab) => {
    await prepare?.(lab);
    putPolicy(lab, "bench.yaml", POLICY);
    const agent = await startAgent(lab, { args });
    const result = await run(lab, agent);
    await agent.stop();
    return result;
  });
}
