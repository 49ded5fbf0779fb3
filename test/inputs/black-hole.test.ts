import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../../src/cli/lab-process.ts";
import { systemClock } from "../../src/inputs/kubernetes/clock.ts";
import { ListWatch } from "../../src/inputs/kubernetes/reflector.ts";
import { httpsTransport } from "../../src/inputs/kubernetes/transport.ts";
import { insideNamespace, run } from "../firewall/netns.ts";
import { FakeApi } from "../support/fake-api.ts";

/** 15 s of silence, ten probes a second apart, and the next try. client-node's informer: 40 s. */
const NOTICED_MS = 32_000;

if (insideNamespace(import.meta.url, ["ip", "iptables"])) {
  test("packets that vanish: TCP keepalive notices, and the watch goes on when they arrive again", { timeout: 90_000 }, async (t) => {
    run("ip", "link", "set", "lo", "up");
    const api = await new FakeApi().listen();
    const now = (): number => performance.now();
    const read = () => Promise.resolve({ ok: true, value: { server: api.url, tls: {}, headers: {} } } as const);
    const transport = httpsTransport({ source: "the test", freshMs: Number.POSITIVE_INFINITY, read }, now, "test");
    const options = { path: api.path, project: () => true, onChange: () => {} };
    const reflector = new ListWatch(transport, systemClock(now), () => 0, options);
    t.after(() => {
      reflector.stop();
      transport.close();
      api.close();
    });
    reflector.start();
    await until("it watches", () => api.watching === 1);
    run("iptables", "-A", "INPUT", "-p", "tcp", "--sport", String(api.port), "-j", "DROP");
    const began = now();
    await until("it is noticed", () => reflector.counters.errors.connect === 1, NOTICED_MS, 50);
    t.diagnostic(`noticed after ${((now() - began) / 1000).toFixed(1)} s`);
    assert.match(reflector.counters.lastError ?? "", /the connection (was cut|timed out)/);
    run("iptables", "-F", "INPUT");
    api.put("a");
    await until("it goes on", () => reflector.items.has("shop/a"), 35_000);
    assert.equal(reflector.counters.lists, 1);
  });
}
