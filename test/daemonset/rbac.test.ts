import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { join } from "node:path";
import { test } from "node:test";
import { API_SERVER, startApiServer, type ApiServer } from "../support/apiserver.ts";
import { chart, install, installRules, NAMESPACE, one, permissions, read, RENDERER, rulesOf } from "../support/manifests.ts";
import { need, ROOT } from "../support/need.ts";

/**
 * What the code asks of the API server, found in its text, is what the manifests allow, no more and no less; and a real API server
 * answers the service account so.
 */
interface Use {
  readonly verb: string;
  readonly resource: string;
  /** In one namespace, named by the configuration; an own one for each object counts as everywhere. */
  readonly namespaced: boolean;
  readonly where: string;
}

/** How a path stands in the code → the verbs that it means. */
const FORMS: readonly (readonly [before: RegExp, verbs: (path: Path) => readonly string[]])[] = [
  [/\breflect(?:<[^>]*>)?\(\{\s*path:\s*$/, () => ["list", "watch"]],
  [/\bcluster\.get\(\s*$/, ({ name }) => [name ? "get" : "list"]],
  // inputs/kubernetes/writes.ts
  [/\bremoveTaint\(get, patch, $/, () => ["get", "patch"]],
  [/createEvent: async [\s\S]*const path = $/, () => ["create"]],
];

interface Path {
  readonly resource: string;
  readonly name: boolean;
  readonly namespaced: boolean;
}

/** `/api/v1/namespaces/${…}/services` and the like. */
function pathOf(text: string): Path {
  const plain = text.replace(/\$\{[^}]*\}/g, "X").replace(/\?.*$/, "");
  const match = /^\/(?:api\/v1|apis\/([a-z0-9.]+)\/[a-z0-9]+)(\/namespaces\/X(?=\/))?\/([a-z]+)(\/X)?$/.exec(plain);
  if (match === null) return assert.fail(`not understood: ${text}`);
  const [, group, namespace, resource = "", name] = match;
  return {
    resource: group === undefined ? resource : `${resource}.${group}`,
    name: name !== undefined,
    namespaced: namespace !== undefined,
  };
}

function uses(text: string, where: string): Use[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|[^:"'`\\])\/\/.*$/gm, "$1");
  return [...code.matchAll(/(["'`])(\/apis?\/[^"'`\n]*)\1/g)].flatMap((match) => {
    const before = code.slice(Math.max(0, match.index - 600), match.index);
    const form = FORMS.find(([pattern]) => pattern.test(before));
    assert.ok(form !== undefined, `${where}: what is done with ${match[2]}? Teach this test.`);
    const path = pathOf(match[2] as string);
    return form[1](path).map((verb) => ({ verb, resource: path.resource, namespaced: path.namespaced, where }));
  });
}

const inCode: Use[] = readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts"))
  .flatMap((file) => uses(readFileSync(join(ROOT, "src", file), "utf8"), file));

const words = (list: readonly Use[]): string[] => [...new Set(list.map(({ verb, resource }) => `${verb} ${resource}`))].sort();
/** Events are written where the policy is: everywhere. */
const inRole = ({ resource, namespaced }: Use): boolean => namespaced && resource !== "events";

test("the reader of the code finds what is planted", () => {
  const say = (text: string): string[] =>
    uses(text, "x").map(({ verb, resource, namespaced }) => `${verb} ${resource}${namespaced ? " in one" : ""}`);
  assert.deepEqual(say('this.a = cluster.reflect({ path: "/api/v1/pods", x })'), ["list pods", "watch pods"]);
  assert.deepEqual(say("cluster.reflect({\n  path: `/apis/discovery.k8s.io/v1/namespaces/${ns}/endpointslices`,"), [
    "list endpointslices.discovery.k8s.io in one",
    "watch endpointslices.discovery.k8s.io in one",
  ]);
  assert.deepEqual(say("await this.deps.cluster.get(`/api/v1/nodes/${node}`)"), ["get nodes"]);
  assert.deepEqual(say('await cluster.get("/api/v1/namespaces?limit=1")'), ["list namespaces"]);
  assert.deepEqual(say('// "/api/v1/secrets"\n/* cluster.get("/api/v1/secrets") */'), []);
  assert.throws(() => say('send("DELETE", "/api/v1/pods/x")'), /Teach this test/);
});

test("no API but that of the reflector, so that no verb escapes this test", () => {
  for (const file of readdirSync(join(ROOT, "src"), { recursive: true, encoding: "utf8" })) {
    if (!file.endsWith(".ts")) continue;
    const text = readFileSync(join(ROOT, "src", file), "utf8");
    assert.doesNotMatch(text, /makeApiClient|CoreV1Api|makeInformer|KubernetesObjectApi|new Watch\(/, file);
  }
});

test("ClusterRole and Roles allow what the code does, and nothing else", (t) => {
  if (!need(t, { commands: RENDERER })) return;
  const { cluster, namespaced } = rulesOf(chart({ startupTaint: { enabled: true } }));
  assert.deepEqual(permissions(cluster), words(inCode.filter((use) => !inRole(use))), "ClusterRole");
  assert.deepEqual([...namespaced.keys()], ["kube-system"]);
  for (const [namespace, rules] of namespaced) assert.deepEqual(permissions(rules), words(inCode.filter(inRole)), namespace);
});

test("without the start-up taint no node can be written", () => {
  const { cluster } = installRules();
  const nodes = permissions(cluster).filter((one) => one.endsWith(" nodes"));
  assert.deepEqual(nodes, ["list nodes"]);
  const writing = permissions(cluster).filter((one) => !/^(get|list|watch) /.test(one));
  assert.deepEqual(writing, ["create events"]);
  for (const rule of cluster) assert.ok([...rule.resources, ...rule.verbs, ...rule.apiGroups].every((word) => word !== "*"));
});

test("a real API server lets the service account do this and nothing else", async (t) => {
  if (!need(t, { ...API_SERVER })) return;
  const api = await startApiServer();
  t.after(() => api.stop());
  const token = await install(api);
  await api.must("POST", "/api/v1/namespaces", { metadata: { name: "shop" } });
  await api.must("POST", "/api/v1/nodes", { metadata: { name: "node-1" } });
  const ask = (method: string, path: string, body?: unknown): Promise<number> => asAgent(api, token, method, path, body);

  const event = {
    metadata: { generateName: "x-", namespace: "shop" },
    involvedObject: { kind: "ConfigMap", namespace: "shop", name: "x" },
    reason: "PolicyAccepted",
  };
  const allowed: readonly (readonly [string, string, unknown?])[] = [
    ["GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1"],
    ["GET", "/api/v1/pods?watch=1&timeoutSeconds=1"],
    ["GET", "/api/v1/namespaces"],
    ["GET", "/api/v1/configmaps?labelSelector=namegate.dev%2Fpolicy%3Dtrue"],
    ["GET", "/api/v1/nodes?limit=1"],
    ["GET", "/api/v1/namespaces/kube-system/services"],
    ["POST", "/api/v1/namespaces/shop/events", event],
  ];
  for (const [method, path, body] of allowed) assert.ok((await ask(method, path, body)) < 300, `${method} ${path}`);
  const json = { metadata: { name: "x" } };
  const forbidden: readonly (readonly [string, string, unknown?])[] = [
    ["GET", "/api/v1/secrets"],
    ["GET", "/api/v1/namespaces/kube-system/secrets/x"],
    ["GET", "/api/v1/services"],
    ["GET", "/api/v1/namespaces/shop/services"],
    ["GET", "/api/v1/namespaces/shop/configmaps/x"],
    ["POST", "/api/v1/namespaces/shop/configmaps", json],
    ["PATCH", "/api/v1/namespaces/shop/configmaps/x", {}],
    ["DELETE", "/api/v1/namespaces/shop/pods/x"],
    ["POST", "/api/v1/namespaces/shop/pods/x/exec"],
    ["POST", "/api/v1/namespaces/shop/pods", json],
    ["GET", "/api/v1/namespaces/shop/events"],
    ["DELETE", "/api/v1/namespaces/shop/events/x"],
    ["GET", "/api/v1/nodes/node-1"],
    ["PATCH", "/api/v1/nodes/node-1", { spec: { unschedulable: true } }],
    ["PATCH", "/api/v1/nodes/node-1/status", {}],
    ["POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", json],
    ["GET", "/apis/apps/v1/daemonsets"],
    ["POST", `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/namegate/token`, json],
  ];
  for (const [method, path, body] of forbidden) assert.equal(await ask(method, path, body), 403, `${method} ${path}`);
  assert.equal(one(read("install.yaml"), "ServiceAccount")["automountServiceAccountToken"], false, "only the DaemonSet's pods get it");
});

/** The status of a request with the service account's token. */
function asAgent(api: ApiServer, token: string, method: string, path: string, body?: unknown): Promise<number> {
  return new Promise((resolve, reject) => {
    const type = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    const request = httpsRequest(
      new URL(path, api.url),
      { method, ca: readFileSync(api.caFile), headers: { authorization: `Bearer ${token}`, "content-type": type } },
      (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode ?? 0));
      },
    );
    request.on("error", reject);
    request.end(body === undefined ? undefined : JSON.stringify(body));
  });
}
