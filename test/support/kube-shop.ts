import { after, type TestContext } from "node:test";
import type { LabPod, PodOptions } from "../../src/cli/lab-types.ts";
import { ACCEPTED, policy, type TestAgent } from "./agent.ts";
import { API_SERVER, type ApiServer, type Rule, startApiServer } from "./apiserver.ts";
import { type Client, clientIn } from "./client.ts";
import { NODE, relay, startClusterAgent } from "./cluster-agent.ts";
import { dnsServer } from "./dns-server.ts";
import { clusterDns, type Lab, labFor } from "./lab.ts";
import { installRules } from "./manifests.ts";
import { serve } from "./servers.ts";
import { NAMES, OUT, SHOP_NEEDS } from "./shop.ts";

/** What a test of the shop in a cluster needs. */
export const KUBE_NEEDS = { ...SHOP_NEEDS, ...API_SERVER } as const;

export { NODE };
export const TAINT = "namegate.dev/agent-not-ready";

/** Beside the rules of install.yaml: what the chart's `startupTaint.enabled` adds. */
const TAINT_RULE: Rule = { apiGroups: [""], resources: ["nodes"], verbs: ["get", "patch"] };

/**
 * The shop of shop.ts in a cluster: a real API server, pods that exist in it and in network namespaces, and an agent of a node. The
 * API server is on the host's loopback; cluster-agent.ts has the way there.
 */
export interface KubeShop {
  readonly lab: Lab;
  readonly api: ApiServer;
  agent: TestAgent;
  start(options?: { config?: object; ready?: boolean }): Promise<TestAgent>;
  /** A pod in the lab; `announced: false`: the API does not know it yet. */
  addPod(options: PodOptions & { announced?: boolean; spec?: Record<string, unknown> }): Promise<LabPod>;
  /** The API learns of a pod, with its addresses, at once. */
  announce(pod: LabPod, spec?: Record<string, unknown>): Promise<void>;
  client(pod: string): Promise<Client>;
  /** Creates or replaces a policy's ConfigMap, `policy-NAME`. Does not wait. */
  put(name: string, spec: unknown, options?: { namespace?: string; kind?: string }): Promise<void>;
  /** And waits until the agent says that it is accepted. */
  enforce(name: string, spec: unknown, options?: { namespace?: string; kind?: string }): Promise<void>;
  /** Nothing that the agent asks is answered before this is set to false; true again holds back what comes then. */
  stall(on: boolean): void;
  /** Events of the API about ConfigMaps of a namespace. */
  apiEvents(namespace?: string): Promise<{ reason: string; message: string; involvedObject: { name: string }; source: { host: string } }[]>;
}

let shared: Promise<ApiServer> | undefined;
after(endApiServer);

/** Ends the API server of this process. Tests need not call it; a program without tests does. */
export async function endApiServer(): Promise<void> {
  const running = shared;
  shared = undefined;
  await (await running)?.stop();
}

/** The tests of a file have one API server, one after the other; each finds it empty. */
export async function kubeShop(t: Pick<TestContext, "after">): Promise<KubeShop> {
  shared ??= startApiServer();
  const [lab, api] = await Promise.all([labFor(t, { iptables: "iptables-nft" }), shared]);
  t.after(() => empty(api));
  const stall = await relay(t, lab, api.port);
  const { pod, port, v4 } = await clusterDns(lab);
  lab.setResolvers([v4]);
  await lab.addServer({ name: "out", addresses: Object.values(OUT) });
  await dnsServer(lab, pod, { port, names: NAMES });
  await serve(lab, "out", [
    { kind: "echo", port: 443 },
    { kind: "echo", port: 5432 },
    { kind: "udp-echo", port: 7000 },
  ]);
  const { cluster, namespaced } = installRules();
  await api.grant("agent", [...cluster, TAINT_RULE]);
  const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system";
  await api.request("POST", `${rbac}/roles`, { metadata: { name: "kube-shop" }, rules: namespaced.get("kube-system") });
  await api.request("POST", `${rbac}/rolebindings`, {
    metadata: { name: "kube-shop" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "kube-shop" },
    subjects: [{ kind: "User", apiGroup: "rbac.authorization.k8s.io", name: "system:serviceaccount:namegate:namegate" }],
  });
  for (const name of ["shop", "namegate", "other"]) await api.request("POST", "/api/v1/namespaces", { metadata: { name } });
  await api.must("POST", "/api/v1/nodes", { metadata: { name: NODE }, spec: { taints: [{ key: TAINT, effect: "NoSchedule" }] } });
  await api.must("POST", "/api/v1/namespaces/kube-system/services", {
    metadata: { name: "kube-dns", labels: { "k8s-app": "kube-dns" } },
    spec: { clusterIP: v4, ports: [{ name: "dns", port: 53, protocol: "UDP" }] },
  });
  const clients = new Map<string, Promise<Client>>();
  const made: KubeShop = {
    lab,
    api,
    stall,
    agent: undefined as unknown as TestAgent,
    start: async ({ config = {}, ready = true } = {}) => {
      made.agent = await startClusterAgent(lab, { kubeconfig: api.kubeconfig("agent"), config, ready });
      return made.agent;
    },
    addPod: async ({ announced = true, spec, ...options }) => {
      const added = await lab.addPod({ v6: false, ...options });
      if (announced) await made.announce(added, spec);
      return added;
    },
    announce: async ({ name, namespace, labels, addresses }, spec = {}) => {
      await api.createPod({ namespace, name, node: NODE, labels, addresses, spec });
    },
    client: (name) => {
      const client = clients.get(name) ?? clientIn(lab, name);
      clients.set(name, client);
      return client;
    },
    put: async (name, spec, options = {}) => {
      const map = JSON.parse(policy(name, spec, options)) as { metadata: { name: string; namespace: string } };
      const path = `/api/v1/namespaces/${map.metadata.namespace}/configmaps`;
      const put = await api.request("PUT", `${path}/${map.metadata.name}`, map);
      if (put.status === 404) await api.must("POST", path, map);
    },
    enforce: async (name, spec, options = {}) => {
      const from = made.agent.events().length;
      await made.put(name, spec, options);
      const id = options.kind === "ClusterEgressPolicy" ? name : `${options.namespace ?? "shop"}/${name}`;
      await made.agent.event(`${id} accepted`, (e) => ACCEPTED.has(e.why) && e.policy === id, { from });
    },
    apiEvents: async (namespace = "shop") => {
      const { items } = await api.must("GET", `/api/v1/namespaces/${namespace}/events?fieldSelector=involvedObject.kind=ConfigMap`);
      return items as Awaited<ReturnType<KubeShop["apiEvents"]>>;
    },
  };
  await made.announce(lab.pods.find(({ name }) => name === pod) as LabPod);
  return made;
}

/** Everything that a test has made goes. */
async function empty(api: ApiServer): Promise<void> {
  if ((await api.request("GET", "/readyz").catch(() => undefined))?.status !== 200) await api.restart();
  for (const namespace of ["shop", "other", "namegate", "kube-system"]) {
    for (const kind of ["pods", "configmaps", "events"])
      await api.must("DELETE", `/api/v1/namespaces/${namespace}/${kind}?gracePeriodSeconds=0`);
    await api.request("DELETE", `/api/v1/namespaces/${namespace}/services/kube-dns`);
  }
  await api.must("DELETE", `/api/v1/nodes/${NODE}`);
}
