import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { caddy, ngtcp2 } from "../support/daemons-web.ts";
import { certificate } from "../support/servers.ts";
import { OTHER, SVC, trial } from "../support/trial.ts";

const QUIC = { application: "quic", protocol: "UDP", port: 443 } as const;

test("ngtcp2's client and servers: QUIC", async (t) => {
  const it = await trial(t, ["gtlsclient", "gtlsserver", "caddy"]);
  if (it === undefined) return;
  await caddy(it.lab, 443);
  await ngtcp2(it.lab, 8443);
  await ngtcp2(it.lab, 9443, ["-V"]);
  writeFileSync(join(it.lab.dir, "htdocs", "file"), "from ngtcp2\n");
  const clientFor = (name: string, port: number, ...more: string[]): string[] => [
    "gtlsclient",
    "--exit-on-all-streams-close",
    "--timeout=3s",
    "--handshake-timeout=1s",
    ...more,
    name,
    String(port),
    `https://${name}:${port}/file`,
  ];
  const client = (port: number, ...more: string[]): string[] => clientFor(SVC, port, ...more);
  const says = /:status: 200/;

  await t.test("versions, servers, Retry", async () => {
    for (const [what, port, more] of [
      ["version 1, caddy", 443, []],
      ["version 1, ngtcp2", 8443, []],
      ["version negotiation", 8443, ["--version=0xfafafafa", "--preferred-versions=v1"]],
      ["Retry", 9443, []],
    ] as const) {
      await it.rules({ ...QUIC, port });
      const event = await it.shows(client(port, ...more), says, { application: "quic", serverName: SVC, alpn: ["h3"], version: "1" });
      assert.match(event.evidence?.ja4 ?? "", /^q13d/, what);
    }
  });

  await t.test("another server name", async () => {
    await it.rules(QUIC);
    await it.passes(client(443), says);
    await it.denied(clientFor(OTHER, 443), says, "wrong-server-name", { application: "quic", serverName: OTHER });
  });

  await t.test("a rule for another protocol", async () => {
    for (const application of ["dtls", "dns", "ntp"]) {
      await it.rules({ ...QUIC, application });
      await it.denied(client(443), says, "wrong-protocol", { application: "quic", serverName: SVC });
    }
  });
});

test("Chromium", async (t) => {
  const it = await trial(t, ["chromium", "caddy"]);
  if (it === undefined) return;
  await caddy(it.lab, 443);
  const { cert } = await certificate(it.lab);
  const pin = await it.lab.run("node", [
    "sh",
    "-c",
    `openssl x509 -in ${cert} -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64`,
  ]);
  const quiet = [
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-dev-shm-usage",
  ];
  let profile = 0;
  const chromium = (...more: string[]): string[] => [
    "chromium",
    "--headless",
    "--no-sandbox",
    ...quiet,
    `--user-data-dir=${it.lab.dir}/chromium-${profile++}`,
    `--ignore-certificate-errors-spki-list=${pin.trim()}`,
    "--dump-dom",
    ...more,
    `https://${SVC}/`,
  ];
  const H3 = `--origin-to-force-quic-on=${SVC}:443`;
  const says = /from caddy/;
  const options = { timeoutMs: 40_000, env: { HOME: it.lab.dir } };

  await t.test("TLS with a post-quantum ClientHello and GREASE", async () => {
    await it.rules({ application: "tls", port: 443, tls: { ech: "Allow" } });
    await it.shows(chromium("--disable-quic"), says, { application: "tls", serverName: SVC, ech: true, version: "1.3" }, options);
  });

  await t.test("what may be a hidden server name needs the rule's word", async () => {
    await it.rules({ application: "tls", port: 443 });
    await it.denied(chromium("--disable-quic"), says, "ech", { application: "tls", serverName: SVC }, options);
  });

  await t.test("QUIC with a ClientHello of several Initials", async () => {
    await it.rules({ ...QUIC, tls: { ech: "Allow" } });
    await it.shows(chromium(H3), /HTTP\/3\.0 from caddy/, { application: "quic", serverName: SVC, ech: true }, options);
  });

  await t.test("a rule for another protocol", async () => {
    await it.rules({ ...QUIC, application: "dns" });
    await it.denied(chromium(H3), says, "wrong-protocol", { application: "quic", serverName: SVC }, options);
  });
});
