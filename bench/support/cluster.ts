import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { until } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { ask } from "../../src/control/socket.ts";
import { type AgentStatus, policy, socketOf, type TestAgent } from "../../test/support/agent.ts";
import { type ApiServer, kubeconfigOf, startApiServer } from "../../test/support/apiserver.ts";
import { type ClusterStart, NODE, relay, startClusterAgent } from "../../test/support/cluster-agent.ts";
import { FakeApi } from "../../test/support/fake-api.ts";
import { benchNode, RESPONDER } from "./node.ts";
import { podObject, type PodObject } from "./pod-object.ts";

/** The node of node.ts in a cluster: its pods are in the API, and its agent has pods and policies from there. */
export interface BenchCluster<Api> {
  readonly lab: Lab;
  readonly api: Api;
  /** Creates or changes it. Its addresses come a moment after it, as the kubelet's do; with the fake they come along. */
  putPod(pod: Omit<PodObject, "node"> & { readonly node?: string }): Promise<void>;
  removePod(name: string, namespace?: string): Promise<void>;
  /** The ConfigMap `policy-NAME` in the namespace `shop`; resolves when the API has it. */
  putPolicy(name: string, spec: unknown): Promise<void>;
  start(options?: Partial<ClusterStart>): Promise<TestAgent>;
  close(): Promise<void>;
  /** What is to be done at close(), the last one first. */
  readonly after: TestContext["after"];
}

const NAMESPACES = ["default", "kube-system", "namegate", "shop"] as const;
export const PODS = "/api/v1/pods";
export const COLLECTIONS = [PODS, "/api/v1/namespaces", "/api/v1/configmaps", "/api/v1/namespaces/kube-system/services"] as const;
const CONFIG = { interfacePrefixes: ["cali", "many"] };
/** Where pods of the cluster are whose agents are not ours. */
const ELSEWHERE = "node-2";

const dnsService = (clusterIP: string): object => ({
  clusterIP,
  clusterIPs: [clusterIP],
  ports: [{ name: "dns", port: 53, protocol: "UDP" }],
});
const DNS_LABELS = { "k8s-app": "kube-dns" };
const mapOf = (name: string, spec: unknown): { metadata: { labels: Record<string, string> }; data: Record<string, string> } =>
  JSON.parse(policy(name, spec)) as ReturnType<typeof mapOf>;

/** What the socket of the node's agent says. */
export async function statusOf(lab: Lab): Promise<AgentStatus> {
  let answer: unknown;
  await ask(socketOf(lab), { command: "status" }, (line) => {
    answer = line;
  });
  return answer as AgentStatus;
}

/** Waits until so many pods whose name begins so are guarded and enforced. */
export async function enforced(lab: Lab, count: number, prefix: string, timeoutMs = 60_000): Promise<void> {
  const there = async (): Promise<boolean> =>
    (await statusOf(lab)).pods.filter((pod) => pod.guarded && pod.enforced === true && pod.name.startsWith(prefix)).length === count;
  await until(`${count} pods ${prefix}* are enforced`, there, timeoutMs, 50);
}

/** Runs its ends in turn, the last one first. */
class Ends {
  private readonly ends: (() => unknown)[] = [];
  readonly after: TestContext["after"] = (end) => void this.ends.unshift(end as () => unknown);
  async run(): Promise<void> {
    for (const end of this.ends.splice(0)) await end();
  }
}

/** What differs from one API server to another. */
type Served<T> = Pick<BenchCluster<T>, "api" | "putPod" | "removePod" | "putPolicy"> & { readonly kubeconfig: string };

async function benchCluster<T>(serve: (lab: Lab, ends: Ends) => Promise<Served<T>>): Promise<BenchCluster<T>> {
  const ends = new Ends();
  const lab = await benchNode();
  ends.after(() => lab.close());
  try {
    const { kubeconfig, ...served } = await serve(lab, ends);
    const cluster: BenchCluster<T> = {
      lab,
      ...served,
      start: (options) => startClusterAgent(lab, { kubeconfig, config: CONFIG, ...options }),
      close: () => ends.run(),
      after: ends.after,
    };
    await announceAll(cluster);
    return cluster;
  } catch (error) {
    await ends.run();
    throw error;
  }
}

/** With an API server in this process: as quick as one can be, and it counts. */
export function fakeCluster(): Promise<BenchCluster<FakeApi>> {
  return benchCluster(async (lab, ends) => {
    const tls = certificate(lab);
    const api = await new FakeApi(tls, COLLECTIONS).listen();
    ends.after(() => api.close());
    api.other = ({ method, url }) => {
      if (method === "POST") return { status: 201, body: {} };
      if (url.pathname !== "/api/v1/nodes") return undefined;
      return { status: 200, body: { kind: "NodeList", metadata: { resourceVersion: "1", remainingItemCount: 4999 }, items: [{}] } };
    };
    for (const name of NAMESPACES) api.put(name, {}, { team: name }, "", COLLECTIONS[1]);
    for (const address of ["10.96.0.10", RESPONDER])
      api.put(`dns-${address}`, { spec: dnsService(address) }, DNS_LABELS, "kube-system", COLLECTIONS[3]);
    await relay(ends, lab, api.port);
    const kubeconfig = lab.file("kubeconfig", JSON.stringify(kubeconfigOf(api.url, tls.file, "bench")));
    return {
      api,
      kubeconfig,
      putPod: (pod) => {
        const { labels, namespace, name } = pod;
        api.put(name, podObject({ node: NODE, ...pod }), labels, namespace, PODS);
        return Promise.resolve();
      },
      removePod: (name, namespace = "shop") => Promise.resolve(void api.remove(name, namespace, PODS)),
      putPolicy: (name, spec) => {
        const { metadata, data } = mapOf(name, spec);
        api.put(`policy-${name}`, { data, metadata: { uid: name } }, metadata.labels, "shop", COLLECTIONS[2]);
        return Promise.resolve();
      },
    };
  });
}

/** Of 127.0.0.1, valid for itself. */
function certificate(lab: Lab): { readonly key: string; readonly cert: string; readonly file: string } {
  const [keyFile, file] = [join(lab.dir, "api.key"), join(lab.dir, "api.crt")];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyFile, "-out", file];
  execFileSync("openssl", ["req", "-x509", "-days", "2", ...key, "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1"], {
    stdio: "ignore",
  });
  return { key: readFileSync(keyFile, "utf8"), cert: readFileSync(file, "utf8"), file };
}

/** With a real kube-apiserver; KUBEBUILDER_ASSETS must be set. */
export function realCluster(): Promise<BenchCluster<ApiServer>> {
  return benchCluster(async (lab, ends) => {
    const api = await startApiServer();
    ends.after(() => api.stop());
    await relay(ends, lab, api.port);
    for (const name of NAMESPACES) await api.request("POST", "/api/v1/namespaces", { metadata: { name, labels: { team: name } } });
    await api.must("POST", "/api/v1/nodes", { metadata: { name: NODE } });
    await until("the namespaces are there", async () => (await api.request("GET", "/api/v1/namespaces/kube-system")).status === 200);
    for (const [i, clusterIP] of ["10.96.0.10", RESPONDER].entries())
      await api.must("POST", COLLECTIONS[3], { metadata: { name: `dns-${i}`, labels: DNS_LABELS }, spec: dnsService(clusterIP) });
    const kubeconfig = api.kubeconfig("admin");
    return {
      api,
      kubeconfig,
      putPod: async ({ namespace, name, labels, addresses, node = NODE }) => {
        await api.createPod({ namespace, name, node, labels, addresses });
      },
      removePod: async (name, namespace = "shop") => {
        await api.must("DELETE", `/api/v1/namespaces/${namespace}/pods/${name}?gracePeriodSeconds=0`);
      },
      putPolicy: async (name, spec) => {
        const map = mapOf(name, spec);
        const path = "/api/v1/namespaces/shop/configmaps";
        const put = await api.request("PUT", `${path}/policy-${name}`, map);
        if (put.status === 404) await api.must("POST", path, map);
      },
    };
  });
}

/** Pods of other nodes, without a status; as quickly as the API server takes them. */
export async function populate(api: ApiServer, count: number, atOnce: number): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: atOnce, ca: readFileSync(api.caFile) });
  const headers = { authorization: `Bearer ${api.token("admin")}`, "content-type": "application/json" };
  const post = (body: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const sent = request(`${api.url}/api/v1/namespaces/default/pods`, { method: "POST", agent, headers }, (response) => {
        response.resume().on("end", () => (response.statusCode === 201 ? resolve() : reject(new Error(`a pod: ${response.statusCode}`))));
      });
      sent.on("error", reject).end(body);
    });
  try {
    await together(count, atOnce, (i) => {
      const metadata = { name: `elsewhere-${i}`, labels: { app: "elsewhere" } };
      return post(JSON.stringify({ metadata, spec: { nodeName: ELSEWHERE, containers: [{ name: "main", image: "none" }] } }));
    });
  } finally {
    agent.destroy();
  }
}

/** The lab's own pods; what no policy selects goes on undisturbed. */
async function announceAll(cluster: BenchCluster<unknown>): Promise<void> {
  for (const { namespace, name, uid, labels, addresses } of cluster.lab.pods)
    await cluster.putPod({ namespace, name, uid, labels, addresses });
}

/** `work` for each number below `count`, so many at once. */
export async function together(count: number, atOnce: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    for (let i = next++; i < count; i = next++) await work(i);
  };
  await Promise.all(Array.from({ length: atOnce }, one));
}
