import assert from "node:assert/strict";
import { test } from "node:test";
import { API_SERVER, startApiServer } from "./apiserver.ts";
import { need } from "./need.ts";

test("the API server of the tests: pods with addresses, RBAC, killed and started again with what it knew", async (t) => {
  if (!need(t, API_SERVER)) return;
  const server = await startApiServer();
  t.after(() => server.stop());
  await server.must("POST", "/api/v1/namespaces", { metadata: { name: "shop" } });
  const pod = await server.createPod({ namespace: "shop", name: "a", node: "node-1", addresses: ["10.244.0.2", "fd00::2"] });
  assert.deepEqual((pod.status as { podIPs: unknown }).podIPs, [{ ip: "10.244.0.2" }, { ip: "fd00::2" }]);
  await server.grant("agent", [{ apiGroups: [""], resources: ["pods"], verbs: ["get"] }]);
  await server.kill();
  await assert.rejects(server.request("GET", "/readyz"), /ECONNREFUSED/);
  await server.restart();
  const again = await server.must("GET", "/api/v1/namespaces/shop/pods/a");
  assert.deepEqual((again.metadata as { uid: string }).uid, (pod.metadata as { uid: string }).uid);
});
