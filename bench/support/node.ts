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

/**
 * One node as the benchmarks want it: the pods `client` and `other`, cluster DNS (DNATed by a service, so conntrack works
 * as on any node with kube-proxy), and a server `out` that answers at all of 198.18.0.0/15.
 */
export async function benchNode(): Promise<Lab> {
  const lacking = missing({ root: true, addon: true, commands: [...LAB_COMMANDS, "gcc"] });
  if (lacking !== undefined) throw new Error(`benchmarks: ${lacking}`);
  const lab = await createLab();
  process.once("SIGTERM", () => void lab.close().finally(() => process.exit(1)));
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

export interface Pair {
  /** No namegate at all. */
  readonly plain: Lab;
  /** The same with the agent. */
  readonly guarded: Lab;
  readonly agent: TestAgent;
}

/** Two equal nodes at once, one without and one with the agent, so that rounds on them can take turns. */
export async function withPair(run: (pair: Pair) => Promise<void>, args: readonly string[] = []): Promise<void> {
  const plain = await benchNode();
  try {
    await withGuarded((guarded, agent) => run({ plain, guarded, agent }), args);
  } finally {
    await plain.close();
  }
}

/** One node with the agent. */
export async function withGuarded(run: (lab: Lab, agent: TestAgent) => Promise<void>, args: readonly string[] = []): Promise<void> {
  const lab = await benchNode();
  try {
    putPolicy(lab, "bench.yaml", POLICY);
    const agent = await startAgent(lab, { args });
    await run(lab, agent);
    await agent.stop();
  } finally {
    await lab.close();
  }
}
