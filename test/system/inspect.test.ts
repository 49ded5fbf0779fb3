import assert from "node:assert/strict";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { OUT, SHOP_NEEDS, type Shop, shop } from "../support/shop.ts";

const WEB = {
  name: "web",
  action: "Accept",
  to: [{ domainNames: ["web.example.com"] }],
  ports: [{ protocol: "TCP", port: 443 }],
  application: "tls",
};
const POLICY = { mode: "Enforce", subject: { podSelector: { matchLabels: { app: "checkout" } } }, egress: [WEB] };
const SERVICE = { v4: "10.96.0.60", v6: "fd00:10:96::60" };

/** Writes a ClientHello in two pieces: `argv` = host, server name. Prints `answered` or the error. */
const SPLIT = `
import socket, ssl, sys, time
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
tls = context.wrap_bio(incoming, outgoing, server_hostname=sys.argv[2])
try: tls.do_handshake()
except ssl.SSLWantReadError: pass
hello = outgoing.read()
s = socket.create_connection((sys.argv[1], 443), timeout=3)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
try:
    s.sendall(hello[:60]); time.sleep(0.1); s.sendall(hello[60:])
    print("answered" if s.recv(1) else "closed")
except OSError as error: print(type(error).__name__)
`;

const why = async (it: Shop, from: number): Promise<unknown[]> => {
  const event = await it.agent.event("denied after inspection", (e) => e.type === "connection" && e.verdict === "deny", { from });
  return [event.why, event.evidence?.serverName ?? null];
};

test("a rule that wants TLS: the server name must be the rule's", async (t) => {
  if (!need(t, { ...SHOP_NEEDS, commands: [...SHOP_NEEDS.commands, "openssl", "curl", "python3"] })) return;
  const it = await shop(t, {
    listen: [{ kind: "https", port: 443 }],
    names: { "web.example.com": { A: [OUT.stripe, SERVICE.v4], AAAA: [OUT.stripe6, SERVICE.v6] } },
    policies: { checkout: POLICY },
  });
  await it.lab.service({ address: SERVICE.v4, port: 443, target: OUT.far, targetPort: 443 });
  await it.lab.service({ address: SERVICE.v6, port: 443, target: OUT.evil6, targetPort: 443 });
  const client = await it.client("checkout");
  await client.resolve({ name: "web.example.com" });
  await client.resolve({ name: "web.example.com", type: "AAAA" });
  const request = "GET / HTTP/1.1\r\nhost: web.example.com\r\n\r\n";

  for (const host of [OUT.stripe, OUT.stripe6, SERVICE.v4, SERVICE.v6]) {
    const place = host.includes(":") ? `[${host}]` : host;
    await t.test(`${host}: the right name passes`, async () => {
      const got = await client.connect({ host, port: 443, serverName: "web.example.com", send: request, expect: 12 });
      assert.match(got.data, /^HTTP\/1.1 200/, String(got.code));
      const curl = await it.lab.exec("checkout", [
        "curl",
        "-sk",
        "-m",
        "5",
        "--resolve",
        `web.example.com:443:${place}`,
        "https://web.example.com/",
      ]);
      assert.match(curl.stdout, /"host":"web.example.com"/, curl.stderr);
    });

    await t.test(`${host}: another name, none, or no TLS at all does not`, async () => {
      let from = it.agent.events().length;
      const other = await client.connect({ host, port: 443, serverName: "evil.example.com", send: request, timeoutMs: 2000 });
      assert.equal(other.code, "ECONNRESET");
      assert.deepEqual(await why(it, from), ["wrong-server-name", "evil.example.com"]);
      from = it.agent.events().length;
      const nameless = await it.lab.exec("checkout", ["openssl", "s_client", "-connect", `${place}:443`, "-noservername"], {
        timeoutMs: 5000,
      });
      assert.doesNotMatch(nameless.stdout, /BEGIN CERTIFICATE/);
      assert.deepEqual(await why(it, from), ["no-server-name", null]);
      from = it.agent.events().length;
      const plain = await client.connect({ host, port: 443, send: request, timeoutMs: 2000 });
      assert.equal(plain.code, "ECONNRESET");
      assert.deepEqual(await why(it, from), ["wrong-protocol", "web.example.com"]);
    });
  }

  await t.test("openssl's own client passes with the right name", async () => {
    const got = await it.lab.exec("checkout", ["openssl", "s_client", "-connect", `${OUT.stripe}:443`, "-servername", "web.example.com"], {
      timeoutMs: 5000,
    });
    assert.match(got.stdout, /BEGIN CERTIFICATE/);
  });

  await t.test("a ClientHello in two segments is waited for, and the wrong one sees a reset", async () => {
    const said = await it.lab.run("checkout", ["python3", it.lab.file("split.py", SPLIT), OUT.stripe, "web.example.com"]);
    assert.match(said, /answered/);
    const from = it.agent.events().length;
    const other = await it.lab.run("checkout", ["python3", it.lab.file("split.py", SPLIT), OUT.stripe, "evil.example.com"]);
    assert.match(other, /ConnectionResetError/);
    assert.deepEqual(await why(it, from), ["wrong-server-name", "evil.example.com"]);
  });

  await t.test("a port whose connection was denied is as good as any other for the next one", async () => {
    // As a default route does on any node: without one the server's reset cannot be sent (behind a ClusterIP).
    await it.lab.run("node", ["ip", "route", "add", "10.96.0.0/16", "dev", "lo"]);
    for (const host of [OUT.stripe, OUT.stripe6, SERVICE.v4]) {
      const localPort = 41_000;
      const denied = await client.connect({ host, port: 443, localPort, serverName: "evil.example.com", send: request });
      assert.equal(denied.code, "ECONNRESET", host);
      await new Promise((resolve) => setTimeout(resolve, 50)); // its sequence numbers are others by then (RFC 6528)
      const next = await client.connect({ host, port: 443, localPort, serverName: "web.example.com", send: request, expect: 12 });
      assert.match(next.data, /^HTTP\/1.1 200/, `${host}: ${JSON.stringify(next)}`);
    }
  });

  await t.test("a connection that was judged is not looked at again", async () => {
    const received = async (): Promise<number> => (await it.agent.status()).queues["inspect"]?.["received"] as number;
    const got = await client.connect({
      host: OUT.stripe,
      port: 443,
      serverName: "web.example.com",
      send: request,
      expect: 100,
      hold: true,
    });
    const before = await received();
    for (let i = 0; i < 20; i++) assert.ok((await client.talk({ hold: got.hold as number, send: request, expect: 100 })).ok);
    assert.equal(await received(), before);
    const passed = await client.connect({ host: OUT.stripe, port: 443, serverName: "web.example.com", send: request, expect: 12 });
    assert.ok(passed.ok);
    const more = (await received()) - before;
    assert.ok(more <= 5, `${more} packets: the hello and the server's bare acknowledgements until the pass`);
  });

  await t.test("Monitor only says it", async () => {
    await it.put("checkout", { ...POLICY, mode: "Monitor" });
    const from = it.agent.events().length;
    const other = await client.connect({ host: OUT.stripe, port: 443, serverName: "evil.example.com", send: request, expect: 12 });
    assert.match(other.data, /^HTTP/);
    const event = await it.agent.event("would deny", (e) => e.verdict === "would-deny", { from });
    assert.deepEqual([event.why, event.evidence?.serverName], ["wrong-server-name", "evil.example.com"]);
  });
});
