import assert from "node:assert/strict";
import { test } from "node:test";
import { PRELUDE, RAW } from "../support/disguise.ts";
import { clientIn } from "../support/client.ts";
import { need } from "../support/need.ts";
import { serve } from "../support/servers.ts";
import { OUT, SHOP_NEEDS, shop } from "../support/shop.ts";

/** A connection that conntrack has forgotten, and that the other end begins again: nothing that the pod says in it goes unread. */

const SHELL = {
  name: "shell",
  action: "Accept",
  to: [{ networks: ["198.51.100.0/24", "2001:db8::/64", "10.244.0.0/16"] }],
  ports: [{ protocol: "TCP", port: 22 }],
  application: "ssh",
};
const POLICY = { mode: "Enforce", subject: { podSelector: { matchLabels: { app: "checkout" } } }, egress: [SHELL] };
const ANYWHERE = { name: "any", action: "Accept", to: [{ networks: ["10.244.0.0/16"] }] };
const OF_PEER = { subject: { podSelector: { matchLabels: { app: "peer" } } }, egress: [ANYWHERE] };

/** A server that speaks first, and says `leak` when the mark reaches it. */
const SERVER = `
import socket, threading
def serve(s):
    s.sendall(b"SSH-2.0-OpenSSH_9.2\\r\\n"); s.settimeout(15)
    try:
        while True:
            b = s.recv(65536)
            if not b: break
            if b"LEAK" in b: print("leak", flush=True)
    except OSError: pass
l = socket.create_server(("::", 22), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True: threading.Thread(target=serve, args=(l.accept()[0],)).start()
`;
const ATTACK = `
q = begin(isn); time.sleep(0.1); raw(first, q, flags=RST, options=MD5)
time.sleep(4); raw(first, q, b"LEAK"); time.sleep(0.2)
`;
const NEEDS = { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "python3", "conntrack"] };

for (const [what, kind, where, peer] of [
  ["IPv4", "routed", OUT.stripe, undefined],
  ["IPv6", "routed", OUT.stripe6, undefined],
  ["a bridged pod", "bridge", OUT.stripe, undefined],
  ["a server in a pod beside it", "routed", "peer", undefined],
  ["a server in a pod that is enforced and may go anywhere", "routed", "peer", "Enforce"],
  ["a server in a pod that is watched", "routed", "peer", "Monitor"],
] as const) {
  test(`what the other end begins again is refused (${what})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const policies = { checkout: POLICY, ...(peer === undefined ? {} : { peer: { ...OF_PEER, mode: peer } }) };
    const it = await shop(t, { pods: [{ name: "checkout", kind }, { name: "peer" }], listen: [], policies });
    await it.lab.run("node", ["sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_close=1"]);
    const server = it.lab.spawn(where === "peer" ? "peer" : "out", ["python3", it.lab.file("server.py", SERVER)]);
    await server.line((line) => line === "ready");
    const host = where === "peer" ? (it.lab.pods.find(({ name }) => name === "peer")?.v4 as string) : where;
    const from = it.agent.events().length;
    await it.lab.run("checkout", ["python3", it.lab.file("play.py", `${PRELUDE}${RAW}${ATTACK}`), host, "22"], { timeoutMs: 15_000 });
    assert.ok(!server.out.includes("leak"));
    const event = await it.agent.event("refused", (e) => e.why === "mid-stream", { from });
    assert.deepEqual([event.pod?.name, event.destination?.address, event.destination?.port], ["checkout", host, 22]);
  });
}

for (const [kind, iptables] of [
  ["routed", "nft"],
  ["bridge", "legacy"],
] as const) {
  test(`connections that others open to a pod live on, but for one that the node has forgotten (${kind}, ${iptables})`, async (t) => {
    if (!need(t, NEEDS)) return;
    const it = await shop(t, { agent: false, pods: [{ name: "checkout", kind }], iptables });
    await serve(it.lab, "checkout", [{ kind: "echo", port: 8080 }]);
    const pod = it.lab.pods.find(({ name }) => name === "checkout");
    const held: (readonly [Awaited<ReturnType<typeof clientIn>>, number])[] = [];
    for (const client of [await clientIn(it.lab, "out"), await clientIn(it.lab, "node")])
      for (const host of [pod?.v4 as string, pod?.v6 as string])
        held.push([client, (await client.connect({ host, port: 8080, send: "hi", expect: 2, hold: true })).hold as number]);
    const alive = async (why: string): Promise<void> => {
      for (const [client, hold] of held) assert.equal((await client.talk({ hold, send: "on", expect: 2 })).data, "on", why);
    };
    const forget = async (): Promise<unknown> => await it.lab.run("node", ["conntrack", "-F"]);
    await it.start();
    await alive("an agent starts");
    await it.put("checkout", { ...POLICY, mode: "Monitor" });
    await alive("a policy appears");
    await forget();
    await alive("Monitor stops nothing");
    await it.put("checkout", POLICY);
    await alive("it is enforced");
    await it.put("checkout", { ...POLICY, egress: [] });
    await alive("it changes");
    await it.agent.kill();
    await it.start();
    await alive("the agent is restarted");
    const from = it.agent.events().length;
    await forget();
    const [client, hold] = held[0] as (typeof held)[number];
    assert.equal((await client.talk({ hold, send: "on", expect: 2 })).code, "ECONNRESET");
    await it.agent.event("refused", (e) => e.why === "mid-stream", { from });
  });
}
