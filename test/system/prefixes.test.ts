import assert from "node:assert/strict";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import { need } from "../support/need.ts";
import { CHECKOUT, OUT, shop, SHOP_NEEDS } from "../support/shop.ts";

/** Interface prefixes make strangers wait. They must not stop pods that are known, however little is known of them. */

test("what prefixes cover and nobody guards is let go: an interface that was not found, and further addresses of a pod", async (t) => {
  if (!need(t, SHOP_NEEDS)) return;
  const it = await shop(t, {
    agent: false,
    pods: ["checkout", "watched", "lost", "second", "eyed"].map((name) => ({ name })),
    policies: {
      checkout: CHECKOUT,
      watched: { ...CHECKOUT, mode: "Monitor", subject: { podSelector: { matchLabels: { app: "watched" } } } },
      eyed: { ...CHECKOUT, mode: "Monitor", subject: { podSelector: { matchLabels: { app: "eyed" } } } },
    },
  });
  const plain = it.lab.podsFile.bind(it.lab);
  it.lab.podsFile = () => {
    const file = parse(plain()) as { pods: { name: string; interface: string }[]; interfacePrefixes?: string[] };
    for (const pod of file.pods) if (pod.name === "watched" || pod.name === "lost") pod.interface = "nowhere0";
    file.interfacePrefixes = ["cali"];
    return stringify(file);
  };
  await it.start();
  const open = async (name: string): Promise<string> => {
    const { code, data } = await (await it.client(name)).connect({ host: OUT.evil, port: 443, send: "x", timeoutMs: 1000 });
    return code ?? data;
  };
  assert.equal(await open("checkout"), "ECONNREFUSED");
  assert.equal(await open("lost"), "x", "no policy selects it");
  assert.equal(await open("watched"), "x", "Monitor stops nothing");
  assert.equal(await open("second"), "x");
  /** Gives a pod an address of its own making, with a route back: as a virtual machine in a pod has one. */
  const further = async (name: string, address: string): Promise<void> => {
    const pod = it.lab.pods.find((one) => one.name === name);
    await it.lab.run("node", ["ip", "route", "add", `${address}/32`, "dev", pod?.interface as string]);
    await it.lab.run(name, ["ip", "addr", "add", `${address}/32`, "dev", "eth0"]);
    await it.lab.run(name, ["ip", "route", "replace", "default", "via", "169.254.1.1", "dev", "eth0", "src", address]);
  };
  await further("second", "10.244.99.1");
  assert.equal(await open("second"), "x", "from its other address");
  assert.equal(await open("eyed"), "x");
  await further("eyed", "10.244.99.3");
  assert.equal(await open("eyed"), "x", "Monitor stops nothing of it either");
  // The same from a guarded pod is a stolen address.
  await further("checkout", "10.244.99.2");
  assert.equal(await open("checkout"), "ETIMEDOUT");
  assert.ok(((await it.agent.status()).counters["spoofed"] as number) > 0);
});
