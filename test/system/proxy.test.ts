import assert from "node:assert/strict";
import { test } from "node:test";
import { nginx, squid } from "../support/daemons.ts";
import { OUT } from "../support/shop.ts";
import { POD, SVC, trial } from "../support/trial.ts";

const PROXY = `http://${SVC}:3128`;
const GOOD = "news.example.com";
const SAME = "cdn.news.example.com";
const EVIL = "evil.example.com";
/** What only the servers know: the pod asks for no name but the proxy's. */
const HOSTS = [`${OUT.evil} ${GOOD} ${SAME} ${EVIL}`];

const RULE = {
  application: "http",
  port: 3128,
  http: { proxy: { targets: [{ domainNames: [GOOD, `*.${GOOD}`], ports: [{ port: 443 }, { port: 80 }, { port: 8022 }] }] } },
};
const curl = (...more: string[]): string[] => ["curl", "-sSk", "-m", "8", "-x", PROXY, ...more];
const says = (host: string): RegExp => new RegExp(`from nginx for ${host}/`);

/** One tunnel, and inside of it what curl cannot say: `argv` = target, server name (none: plain bytes). */
const TUNNEL = `
import socket, ssl, sys, time
target, name = sys.argv[1], sys.argv[2]
s = socket.create_connection(("${SVC}", 3128), timeout=6)
s.sendall(("CONNECT %s HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % (target, target)).encode())
answer = s.recv(4096)
print(answer.split(b"\\r\\n")[0].decode())
time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0)
if name == "-":
    s.sendall(b"SSH-2.0-client\\r\\n")
    print("inside", s.recv(4096)[:40])
else:
    context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(s, server_hostname=name) as tls:
        tls.sendall(b"GET / HTTP/1.0\\r\\nHost: ${GOOD}\\r\\n\\r\\n")
        print("inside", tls.recv(4096))
`;

test("squid: each request is judged by what it asks for", async (t) => {
  const it = await trial(t, ["curl", "squid", "nginx", "python3"]);
  if (it === undefined) return;
  await nginx(it.lab, { plain: [80, 8022], tls: [443] });
  const proxy = await squid(it.lab, 3128, HOSTS);
  await it.rules(RULE);
  const tunnel = (...argv: string[]): string[] => ["python3", it.lab.file("tunnel.py", TUNNEL), ...argv];

  await t.test("CONNECT", async () => {
    await it.shows(curl(`https://${GOOD}/a`), says(GOOD), { application: "http1", fields: { method: "CONNECT", target: `${GOOD}:443` } });
    await it.denied(curl(`https://${EVIL}/a`), says(EVIL), "wrong-server-name", {
      serverName: EVIL,
      fields: { method: "CONNECT", target: `${EVIL}:443` },
    });
    await it.denied(curl(`https://${OUT.evil}/a`), /from nginx/, "wrong-server-name", { fields: { target: `${OUT.evil}:443` } });
  });

  await t.test("absolute form, one connection, two requests", async () => {
    await it.passes(curl(`http://${GOOD}/a`, `http://${SAME}/b`), says(SAME));
    const from = it.shop.agent.events().length;
    const got = await it.run(curl("-v", `http://${GOOD}/a`, `http://${GOOD}/b`, `http://${EVIL}/c`));
    const event = await it.shop.agent.event("the third one", ({ verdict }) => verdict === "deny", { from });
    assert.deepEqual([event.why, event.nearest?.policy, event.evidence?.fields?.target], ["wrong-server-name", "shop/trial", `${EVIL}:80`]);
    assert.match(got.stdout, /for news.example.com\/a\n.*for news.example.com\/b/s, got.stderr);
    assert.match(got.stderr, /Re-using existing connection/);
    assert.match(got.stderr, /[Rr]eset/);
  });

  await t.test("the proxy's own pages", async () => {
    const argv = ["curl", "-sS", "-m", "8", `${PROXY}/squid-internal-mgr/info`];
    await it.denied(argv, /squid/i, "no-server-name");
  });

  await t.test("bodies, small and large, and what comes after them", async () => {
    const body = it.lab.file("body", `GET http://${EVIL}/ HTTP/1.1\r\nHost: ${EVIL}\r\n\r\n`.repeat(20_000));
    const send = ["-H", "Expect:", "--data-binary", `@${body}`];
    await it.passes(curl(...send, "-w", "%{http_code} %{size_upload}\n", `http://${GOOD}/a`, `http://${GOOD}/b`), /(200|413) \d+/);
    const chunked = curl(
      "-H",
      "Transfer-Encoding: chunked",
      "-H",
      "Expect:",
      "--data-binary",
      "hello",
      `http://${GOOD}/a`,
      `http://${GOOD}/b`,
    );
    await it.passes(chunked, says(GOOD));
  });

  await t.test("inside of a tunnel: the target's name, a name of the same entry, another", async () => {
    await it.passes(tunnel(`${GOOD}:443`, GOOD), /inside b'HTTP/);
    await it.passes(tunnel(`${GOOD}:443`, SAME, "1"), /inside b'HTTP/);
    await it.denied(tunnel(`${GOOD}:443`, EVIL), /inside b/, "wrong-server-name", {
      serverName: EVIL,
      upgrade: "tls",
      fields: { target: `${GOOD}:443` },
    });
    await it.denied(tunnel(`${GOOD}:443`, "-"), /inside b/, "wrong-protocol", { fields: { target: `${GOOD}:443` } });
    await it.passes(tunnel(`${GOOD}:8022`, "-"), /inside b'(HTTP|<html)/);
  });

  await t.test("a tunnel that is judged is the kernel's", async () => {
    const received = async (): Promise<number> => (await it.shop.agent.status()).queues["inspect"]?.["received"] as number;
    const before = await received();
    await it.passes(
      curl(`https://${GOOD}/${"x".repeat(7000)}`, ...Array.from({ length: 20 }, (_, i) => `https://${GOOD}/${i}`)),
      says(GOOD),
    );
    const packets = (await received()) - before;
    assert.ok(packets < 25, `${packets} packets for 21 requests`);
  });

  await t.test("another rule for the proxy itself does not open its tunnels", async () => {
    await it.rules(RULE, { application: "http1", port: 3128 });
    await it.passes(["curl", "-sS", "-m", "8", `${PROXY}/x`], /squid/i);
    await it.denied(
      ["curl", "-sS", "-m", "8", `${PROXY}/x`, "--next", ...curl(`http://${EVIL}/`).slice(1)],
      says(EVIL),
      "wrong-server-name",
    );
  });

  await t.test("a large download is whole", async () => {
    const got = await it.lab.exec(POD, curl("-o", "/dev/null", "-w", "%{http_code}", `http://${GOOD}/${"y".repeat(7500)}`));
    assert.equal(got.stdout, "200", got.stderr);
  });
  assert.equal(proxy.status, undefined);
});
