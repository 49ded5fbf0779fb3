import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv } from "ajv";
import { parse as parseYaml } from "yaml";
import { readConfig } from "../../src/inputs/config/read.ts";
import { MAIN } from "../support/agent.ts";
import { API_SERVER, startApiServer } from "../support/apiserver.ts";
import { manifestCapabilities } from "../support/image.ts";
import { chart, kustomize, type Manifest, manifests, NAMESPACE, one, read, RENDERER } from "../support/manifests.ts";
import { need, onPath, ROOT } from "../support/need.ts";

const CHART = join(ROOT, "daemonset", "chart");
type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
const values = parseYaml(readFileSync(join(CHART, "values.yaml"), "utf8")) as { [key: string]: Json };
const schema = JSON.parse(readFileSync(join(CHART, "values.schema.json"), "utf8")) as object;
/** Everything that can be switched on. */
const EVERYTHING = {
  namespace: { create: true },
  image: { digest: `sha256:${"0".repeat(64)}`, pullSecrets: ["registry"] },
  config: {
    markMask: "0xe00",
    interfacePrefixes: ["cali"],
    resolvers: { namespaces: ["kube-system", "dns"] },
    startup: { apiWait: "5s" },
    alerts: {
      cluster: "prod",
      fold: { window: "30s", podPerSecond: 5, nodePerSecond: 100 },
      sinks: [
        { type: "stdout", format: "ocsf", ocsfVersion: "1.6.0", filter: { severity: "high", types: ["dns"], verdicts: ["deny"] } },
        {
          type: "file",
          path: "/var/lib/namegate/events.log",
          size: "10Mi",
          keep: 3,
          filter: { namespaces: ["shop"], policies: ["shop/a"] },
        },
        {
          type: "syslog",
          address: "siem.example:6514",
          facility: "authpriv",
          format: "cef",
          tls: { caFile: "/etc/namegate-secrets/siem/ca.pem" },
        },
        { type: "splunk", url: "https://hec.example:8088", tokenFile: "/etc/namegate-secrets/siem/token", index: "main", ack: true },
        { type: "elastic", url: "https://es.example", spool: "128Mi", batch: { events: 100, bytes: "1Mi", linger: "1s", timeout: "5s" } },
        { type: "otlp", url: "http://otel.monitoring:4318" },
        { type: "webhook", name: "pager", url: "https://hook.example/x", secretFile: "/etc/namegate-secrets/siem/hook" },
      ],
    },
  },
  secretMounts: ["siem"],
  metrics: { address: "[::]", port: 9999 },
  startupTaint: { enabled: true },
  apiServer: { host: "10.0.0.1", port: 6443 },
  starter: { mode: "Enforce", namespaceSelector: { matchLabels: { team: "shop" } } },
  affinity: { nodeAffinity: {} },
  podAnnotations: { a: "b" },
  podLabels: { c: "d" },
  podMonitor: { enabled: true, labels: { release: "prometheus" } },
  prometheusRule: { enabled: true },
  dashboard: { enabled: true },
  openshift: { enabled: true },
  gke: { enabled: true },
};

const by = (objects: readonly Manifest[]): Record<string, Manifest> =>
  Object.fromEntries(objects.map((object) => [`${object.kind} ${object.metadata.namespace ?? ""}/${object.metadata.name}`, object]));
const container = (objects: readonly Manifest[]): { [key: string]: Json } => {
  const { spec } = one(objects, "DaemonSet") as unknown as { spec: { template: { spec: { containers: { [key: string]: Json }[] } } } };
  return spec.template.spec.containers[0] as { [key: string]: Json };
};

test("install.yaml, uninstall.yaml and kustomize are what the chart says", (t) => {
  if (!need(t, { commands: RENDERER })) return;
  const { status, stderr } = manifests("check");
  assert.equal(status, 0, stderr);
});

test("each overlay of kustomize is the chart with the same values", (t) => {
  if (!need(t, { commands: [...RENDERER, "kubectl"] })) return;
  const { stdout } = spawnSync("kubectl", ["version", "--client", "-o", "json"], { encoding: "utf8" });
  if (!stdout.includes("kustomizeVersion")) return t.skip("this kubectl's kustomize is older than 4.0, and does not know inline patches");
  const create = { namespace: { create: true } };
  const same: Readonly<Record<string, object>> = {
    base: {},
    "overlays/discover": { starter: { mode: "Discover" } },
    "overlays/monitor": { starter: { mode: "Monitor" } },
    "overlays/enforce": { starter: { mode: "Enforce" } },
    "overlays/openshift": { openshift: { enabled: true } },
    "overlays/gke": { gke: { enabled: true } },
  };
  const overlays = readdirSync(join(ROOT, "daemonset", "kustomize", "overlays")).map((name) => `overlays/${name}`);
  assert.deepEqual(Object.keys(same).sort(), ["base", ...overlays].sort());
  for (const [overlay, given] of Object.entries(same))
    assert.deepEqual(by(kustomize(overlay) ?? []), by(chart({ ...create, ...given })), overlay);
});

test("values.schema.json takes the defaults and refuses what is misspelt, at every level", () => {
  const validate = new Ajv({ allErrors: true, allowUnionTypes: true }).compile(schema);
  assert.ok(validate(values), JSON.stringify(validate.errors));
  let tried = 0;
  // Labels, annotations, a node selector and an affinity have keys of the user's.
  const free = /^(affinity|nodeSelector|podAnnotations|podLabels|.*\.labels|.*\.matchLabels)$/;
  const visit = (value: Json, path: string[]): void => {
    if (typeof value !== "object" || value === null || Array.isArray(value) || free.test(path.join("."))) return;
    const copy = structuredClone(values);
    let at = copy;
    for (const key of path) at = at[key] as { [key: string]: Json };
    at["misspelt"] = true;
    assert.equal(validate(copy), false, `${path.join(".")}.misspelt is taken`);
    tried++;
    for (const [key, inner] of Object.entries(value)) visit(inner, [...path, key]);
  };
  visit(values, []);
  assert.ok(tried > 15, String(tried));
  for (const wrong of [
    { starter: { mode: "enforce" } },
    { config: { resolvers: { namespaces: [] }, logLevel: "loud" } },
    { image: { digest: "latest" } },
    { maxUnavailable: "0%" },
    { metrics: { port: 0 } },
    { config: { resolvers: { namespaces: [] }, metrics: "0.0.0.0:1" } },
  ])
    assert.equal(validate(wrong), false, JSON.stringify(wrong));
  assert.ok(validate(EVERYTHING), JSON.stringify(validate.errors));
});

test("the agent reads the configuration that the chart writes, and the schema knows each of its fields", (t) => {
  if (!need(t, { commands: RENDERER })) return;
  for (const given of [{}, EVERYTHING]) {
    const { data } = one(chart(given), "ConfigMap", "namegate-config") as unknown as { data: { "config.yaml": string } };
    const { settings, problems } = readConfig("config.yaml", data["config.yaml"]);
    assert.deepEqual(problems, []);
    assert.equal(settings?.cluster.startup.taint, "startupTaint" in given ? "namegate.dev/agent-not-ready" : undefined);
    assert.deepEqual(settings?.cluster.resolvers.namespaces, "config" in given ? ["kube-system", "dns"] : ["kube-system"]);
  }
  // A field that the agent does not know names those that it knows.
  const hints = (text: string): string[] =>
    (
      /known are: (.*)/.exec(
        readConfig("c", text)
          .problems.map(({ hint }) => hint)
          .join("\n"),
      )?.[1] ?? assert.fail(text)
    ).split(", ");
  const { config } = (schema as { properties: Record<string, { properties: Record<string, { properties?: object }> }> }).properties;
  const known = config?.properties ?? {};
  // Standalone, per node, or the chart writes or mounts it.
  const left = new Set(["policies", "pods", "metrics", "nodeName", "kubeconfig", "cniConfigDir", "taint"]);
  const same = (schemaKeys: object | undefined, text: string): void =>
    assert.deepEqual(
      Object.keys(schemaKeys ?? {}).sort(),
      hints(text)
        .filter((name) => !left.has(name))
        .sort(),
    );
  same(known, "zzzzzzzzzzzz: 1");
  for (const name of ["limits", "resolvers", "startup", "alerts"]) same(known[name]?.properties, `${name}: { zzzzzzzzzzzz: 1 }`);
  const alerts = known["alerts"] as unknown as {
    properties: { sinks: { items: { oneOf: { properties: { type: { const: string } } }[] } } };
  };
  for (const { properties } of alerts.properties.sinks.items.oneOf)
    same(properties, `alerts: { sinks: [ { type: ${properties.type.const}, zzzzzzzzzzzz: 1 } ] }`);
});

test("the DaemonSet: host network and processes, no privilege, nothing flushed on stop, one agent a node", () => {
  const set = one(read("install.yaml"), "DaemonSet") as unknown as {
    spec: {
      updateStrategy: Json;
      template: { spec: { [key: string]: Json } };
    };
  };
  const { spec } = set.spec.template;
  assert.deepEqual(set.spec.updateStrategy, { type: "RollingUpdate", rollingUpdate: { maxUnavailable: "10%" } });
  assert.equal(spec["hostNetwork"], true);
  assert.equal(spec["hostPID"], true);
  assert.equal(spec["priorityClassName"], "system-node-critical");
  assert.deepEqual(spec["tolerations"], [{ operator: "Exists" }]);
  const main = container(read("install.yaml"));
  assert.equal(main["lifecycle"], undefined);
  assert.deepEqual(main["securityContext"], {
    privileged: false,
    runAsUser: 0,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    seccompProfile: { type: "RuntimeDefault" },
    capabilities: { drop: ["ALL"], add: manifestCapabilities() },
  });
  for (const probe of ["startupProbe", "livenessProbe", "readinessProbe"])
    assert.equal((main[probe] as { httpGet: { host: string } }).httpGet.host, "127.0.0.1", probe);
  assert.equal(main["ports"], undefined, "with hostNetwork a port is a claim");
  const { labels } = one(read("install.yaml"), "Namespace").metadata;
  assert.equal(labels?.["pod-security.kubernetes.io/enforce"], "privileged");
});

test("switches of the chart", (t) => {
  if (!need(t, { commands: RENDERER })) return;
  const all = chart(EVERYTHING);
  const { allowedCapabilities } = one(all, "SecurityContextConstraints");
  assert.deepEqual(allowedCapabilities, manifestCapabilities());
  for (const on of [all, chart({ openshift: { enabled: true } })]) {
    const { template } = one(on, "DaemonSet")["spec"] as { template: { spec: { volumes: { name: string }[] } } };
    const kinds = new Set(template.spec.volumes.flatMap((volume) => Object.keys(volume).filter((key) => key !== "name")));
    kinds.add("projected"); // the token
    assert.deepEqual([...(one(on, "SecurityContextConstraints")["volumes"] as string[])].sort(), [...kinds].sort());
  }
  const probe = container(all)["readinessProbe"] as { httpGet: Json };
  assert.deepEqual(probe.httpGet, { host: "127.0.0.1", port: 9999, path: "/readyz" });
  assert.equal(container(all)["image"], `namegate/namegate@sha256:${"0".repeat(64)}`);
  const refused = manifests("render", JSON.stringify({ podMonitor: { enabled: true } }));
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /Prometheus cannot reach loopback/);
  const gone = container(chart({ uninstall: true }));
  assert.equal(gone["readinessProbe"], undefined);
  assert.match(manifests("render", "{}", "notes").stdout, /It touches nothing until there is a policy/);
});

test("policies that come with it are valid", () => {
  const folders = ["examples", ...["discover", "monitor", "enforce"].map((name) => `kustomize/overlays/${name}`)];
  const files = folders.flatMap((folder) =>
    readdirSync(join(ROOT, "daemonset", folder)).flatMap((name) =>
      name === "kustomization.yaml" ? [] : [join(ROOT, "daemonset", folder, name)],
    ),
  );
  assert.ok(files.length >= 5);
  // One by one: the starters have one name, since one replaces the other.
  for (const file of files) {
    const { status, stdout } = spawnSync(process.execPath, [MAIN, "check", file], { encoding: "utf8" });
    assert.equal(status, 0, stdout);
    assert.match(stdout, /1 file, 1 valid policy, 0 problems/);
  }
});

test("a real API server takes every object as it is", async (t) => {
  if (!need(t, { ...API_SERVER, commands: RENDERER })) return;
  const api = await startApiServer();
  t.after(() => api.stop());
  await api.must("POST", "/api/v1/namespaces", { metadata: { name: NAMESPACE } });
  for (const name of ["dns", "shop"]) await api.must("POST", "/api/v1/namespaces", { metadata: { name } });
  const examples = readdirSync(join(ROOT, "daemonset", "examples")).flatMap((name) => read(`examples/${name}`));
  // Of kinds that are extensions' there are no definitions here.
  const core = [...read("install.yaml"), ...chart(EVERYTHING), ...examples].filter(
    ({ apiVersion }) => !/monitoring\.coreos|openshift/.test(apiVersion),
  );
  for (const object of core) {
    if (object.kind === "Namespace") continue; // a dry run would say that it exists
    const { status, body } = await api.request("POST", `${collection(object)}?dryRun=All`, object);
    assert.equal(status, 201, `${object.kind} ${object.metadata.name}: ${JSON.stringify(body)}`);
    // 1.20 drops fields that it does not know without a word.
    contains(body as Json, object as unknown as Json, `${object.kind} ${object.metadata.name}`);
  }
  if (!onPath("kubectl")) return;
  const kubectl = spawnSync("kubectl", ["--kubeconfig", api.kubeconfig(), "apply", "-f", join(ROOT, "daemonset", "install.yaml")], {
    encoding: "utf8",
  });
  assert.equal(kubectl.status, 0, kubectl.stderr);
  const again = spawnSync("kubectl", ["--kubeconfig", api.kubeconfig(), "apply", "-f", join(ROOT, "daemonset", "uninstall.yaml")], {
    encoding: "utf8",
  });
  assert.equal(again.status, 0, again.stderr);
  const set = (await api.must("GET", `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets/namegate`)) as unknown as Manifest;
  assert.equal(container([set])["readinessProbe"], undefined, "apply takes away what uninstall.yaml does not have");
});

function collection({ apiVersion, kind, metadata: { namespace } }: Manifest): string {
  const group = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  return `${group}${namespace === undefined ? "" : `/namespaces/${namespace}`}/${kind.toLowerCase()}s`;
}

/** Everything that was sent is in the answer (defaults may be there too, quantities and empty things may be written otherwise). */
function contains(answer: Json, sent: Json, path: string): void {
  if (Array.isArray(sent)) {
    assert.ok(Array.isArray(answer), path);
    sent.forEach((one, i) => contains(answer[i] as Json, one, `${path}[${i}]`));
  } else if (typeof sent === "object" && sent !== null) {
    if (Object.keys(sent).length === 0) return;
    assert.ok(typeof answer === "object" && answer !== null && !Array.isArray(answer), `${path} is not in the answer`);
    for (const [key, value] of Object.entries(sent)) contains(answer[key] as Json, value, `${path}.${key}`);
  } else if (!path.endsWith(".hard.pods")) assert.equal(String(answer), String(sent), path);
}
