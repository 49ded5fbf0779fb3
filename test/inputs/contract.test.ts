import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { ListWatch } from "../../src/inputs/kubernetes/reflector.ts";
import { httpsTransport } from "../../src/inputs/kubernetes/transport.ts";
import type { RawObject, ReflectOptions } from "../../src/inputs/kubernetes/types.ts";
import { until } from "../../src/cli/lab-process.ts";
import { API_SERVER, startApiServer } from "../support/apiserver.ts";
import { fastClock } from "../support/clock.ts";
import { door } from "../support/door.ts";
import { FakeApi } from "../support/fake-api.ts";
import { need } from "../support/need.ts";
import { troubles } from "./contract.ts";

/** What may befall a list/watch loop, the same on the fake and on the real server. */

/** Waits of the loop; the real server is away for seconds, in which they grow. */
const FASTER = 10;

/** Reflectors with a token, until the test ends; half a minute takes 30 s divided by `faster`. */
function reflectWith(t: TestContext, server: string, token: string, faster = 1, ca?: string) {
  const credentials = { server, tls: ca === undefined ? {} : { ca }, headers: { Authorization: `Bearer ${token}` } };
  const read = () => Promise.resolve({ ok: true, value: credentials } as const);
  const clock = fastClock(faster);
  const transport = httpsTransport({ source: "the test", freshMs: Number.POSITIVE_INFINITY, read }, clock.now, "test");
  t.after(() => transport.close());
  return <T>(options: ReflectOptions<T>): ListWatch<T> => {
    const made = new ListWatch<T>(transport, clock, () => 0, options);
    t.after(() => made.stop());
    return made;
  };
}

test("cut, too old, killed, slow, forbidden, unauthorised: the fake", async (t) => {
  const api = await new FakeApi().listen();
  t.after(() => api.close());
  api.tokens.add("good");
  const { port } = api;
  const way = await door(t, port);
  const url = `http://127.0.0.1:${way.port}`;
  await troubles(
    {
      path: api.path,
      door: way,
      put: (name, labels) => Promise.resolve(api.put(name, {}, labels)),
      remove: (name) => Promise.resolve(void api.remove(name)),
      kill: () => Promise.resolve(api.close()),
      restart: async () => void (await api.listen(port)),
      forget: () => Promise.resolve(api.compact()),
      permit: (on) => {
        api.fault = () => (on ? undefined : { kind: "status", status: 403 });
        return Promise.resolve();
      },
      reflect: reflectWith(t, url, "good"),
      intruder: reflectWith(t, url, "bad"),
    },
    10_000,
  );
});

test("cut, too old, killed, slow, forbidden, unauthorised: a real kube-apiserver", async (t) => {
  if (!need(t, API_SERVER)) return;
  const server = await startApiServer();
  t.after(() => server.stop());
  await server.must("POST", "/api/v1/namespaces", { metadata: { name: "shop" } });
  const path = "/api/v1/namespaces/shop/configmaps";
  const permit = (on: boolean): Promise<void> =>
    server.grant("agent", on ? [{ apiGroups: [""], resources: ["configmaps"], verbs: ["list", "watch"] }] : []);
  await permit(true);
  const way = await door(t, server.port);
  const [url, ca] = [`https://127.0.0.1:${way.port}`, readFileSync(server.caFile, "utf8")];
  await troubles(
    {
      path,
      door: way,
      put: async (name, labels) => {
        const map = { metadata: { name, labels } };
        if ((await server.request("POST", path, map)).status === 409) await server.must("PUT", `${path}/${name}`, map);
      },
      remove: async (name) => void (await server.must("DELETE", `${path}/${name}`)),
      kill: () => server.kill(),
      restart: () => server.restart(),
      forget: async () => {
        // Its cache begins anew with what is there now.
        await server.kill();
        await server.restart();
      },
      permit,
      reflect: reflectWith(t, url, server.token("agent"), FASTER, ca),
      intruder: reflectWith(t, url, "nobody-gave-it", FASTER, ca),
    },
    60_000,
  );
});

test("10 000 pods in the cluster and 250 on this node: only those are sent, in one list or one page, and none is lost when it changes", async (t) => {
  const api = await new FakeApi(undefined, ["/api/v1/pods"]).listen();
  t.after(() => api.close());
  const reflect = reflectWith(t, api.url, "any");
  const pod = (i: number, node: string): void => api.put(`p${i}`, { spec: { nodeName: node } });
  for (let i = 0; i < 10_000; i++) pod(i, `node-${2 + (i % 40)}`);
  for (let i = 10_000; i < 10_250; i++) pod(i, "node-1");
  for (const list of ["cached", "paged"] as const) {
    const fieldSelector = "spec.nodeName=node-1";
    const project = ({ metadata: { name } }: RawObject): string => name;
    const it = reflect({ path: api.path, fieldSelector, list, project, onChange: () => {} });
    it.start();
    await until("it is read", () => it.synced && it.items.size === 250);
    await until("it watches", () => api.watching === 1);
    for (let i = 0; i < 10_000; i += 10) pod(i, `node-${2 + (i % 40)}`);
    for (let i = 10_000; i < 10_010; i++) api.remove(`p${i}`);
    await until("ten are gone", () => it.items.size === 240);
    for (let i = 10_000; i < 10_010; i++) pod(i, "node-1");
    await until("and back", () => it.items.size === 250);
    const { lists, watches, events, errors } = it.counters;
    assert.deepEqual({ lists, watches, events, errors }, { lists: 1, watches: 1, events: 20, errors: {} });
    it.stop();
    await until("it is closed", () => api.watching === 0);
  }
});
