import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type AgentStatus, running } from "../support/agent.ts";
import { bundleFor, folderFor, IMAGE_COMMANDS, manifestCapabilities, NAMEGATE, NODE_INSIDE } from "../support/image.ts";
import { KUBE_NEEDS, kubeShop, NODE } from "../support/kube-shop.ts";
import { install, NAMESPACE, one, read } from "../support/manifests.ts";
import { until } from "../support/lab.ts";
import { need } from "../support/need.ts";
import { CHECKOUT, OUT } from "../support/shop.ts";

/**
 * install.yaml as it is, as far as there is no kubelet: its configuration, its Roles by a token of its service account, its capabilities
 * and volumes, the bundle of its image. A real API server, a node and pods in network namespaces.
 */
test("the agent of install.yaml: a policy is enforced, also by its successor while the API server is away", async (t) => {
  if (!need(t, { ...KUBE_NEEDS, commands: [...KUBE_NEEDS.commands, ...IMAGE_COMMANDS, "curl"] })) return;
  const image = bundleFor(t);
  const it = await kubeShop(t);
  const token = await install(it.api);

  const host = folderFor(t);
  const folder = (name: string): string => {
    mkdirSync(join(host, name));
    return join(host, name);
  };
  const account = folder("account");
  writeFileSync(join(account, "token"), token);
  writeFileSync(join(account, "namespace"), NAMESPACE);
  copyFileSync(it.api.caFile, join(account, "ca.crt"));
  const config = folder("config");
  const { data } = one(read("install.yaml"), "ConfigMap") as unknown as { data: Readonly<Record<string, string>> };
  for (const [name, text] of Object.entries(data)) writeFileSync(join(config, name), text);
  const volumes = {
    "/var/run/secrets/kubernetes.io/serviceaccount": account,
    "/etc/namegate": config,
    "/run/namegate": folder("run"),
    "/var/lib/namegate": folder("state"),
  };
  const env = [
    `NODE_NAME=${NODE}`,
    `POD_NAMESPACE=${NAMESPACE}`,
    "POD_NAME=namegate-x",
    "KUBERNETES_SERVICE_HOST=127.0.0.1",
    `KUBERNETES_SERVICE_PORT=${it.api.port}`,
  ];
  const inside = image.inside({ capabilities: manifestCapabilities(), volumes });
  const start = async (): Promise<void> => {
    const argv = ["env", "-u", "KUBECONFIG", ...env, ...inside, NODE_INSIDE, NAMEGATE, "agent", "--config=/etc/namegate/config.yaml"];
    it.agent = await running(it.lab, it.lab.spawn("node", argv));
  };
  const ask = async (command: string): Promise<string> =>
    (await it.lab.exec("node", [...inside, NODE_INSIDE, NAMEGATE, command, "-o", "json"])).stdout;

  await it.addPod({ name: "checkout" });
  await start();
  const client = await it.client("checkout");
  await it.enforce("checkout", CHECKOUT);
  const holds = async (): Promise<void> => {
    assert.equal((await client.resolveThenConnect({ name: "api.stripe.com", port: 443, send: "x" })).connected?.data, "x");
    assert.equal((await client.connect({ host: OUT.evil, port: 443 })).code, "ECONNREFUSED");
  };
  await holds();

  const status = JSON.parse(await ask("status")) as AgentStatus;
  assert.equal(status.effectiveMode, "Enforce");
  const checkout = status.pods.find(({ name }) => name === "checkout");
  assert.deepEqual([checkout?.guarded, checkout?.enforced, checkout?.why], [true, true, undefined]);
  assert.deepEqual(
    status.inputs.map(({ resource, synced, error }) => [resource, synced, error]),
    [
      ["pods", true, undefined],
      ["namespaces", true, undefined],
      ["configmaps", true, undefined],
      ["services/kube-system", true, undefined],
    ],
    "its Roles are enough",
  );
  for (const path of ["/healthz", "/readyz"]) {
    const got = await it.lab.exec("node", ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", `http://127.0.0.1:9810${path}`]);
    assert.equal(got.stdout, "200", path);
  }
  await until("the API server has its Event", async () => (await it.apiEvents()).some(({ reason }) => reason === "PolicyAccepted"));
  assert.ok(!it.agent.child.err.some((line) => /forbidden|EPERM|EACCES|EROFS|not permitted/i.test(line)), it.agent.child.err.join("\n"));

  await it.agent.stop();
  it.stall(true);
  await start();
  await holds();
  it.stall(false);
  await it.agent.stop();
});
