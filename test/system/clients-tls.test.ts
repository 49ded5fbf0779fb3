import assert from "node:assert/strict";
import { test } from "node:test";
import { daemon, nginx } from "../support/daemons.ts";
import { certificate } from "../support/servers.ts";
import { SVC, trial, type Trial } from "../support/trial.ts";

/** Python's ssl: `argv` = host, server name, ALPN names; prints the version and the first line of the answer. */
const PYTHON = `
import socket, ssl, sys
host, name, names = sys.argv[1], sys.argv[2], int(sys.argv[3])
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
context.set_alpn_protocols(["http/1.1"] + ["x" * 250 + "%05d" % i for i in range(names)])
if names > 60: context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
with socket.create_connection((host, 443), timeout=8) as plain:
    with context.wrap_socket(plain, server_hostname=name) as tls:
        tls.sendall(b"GET /python HTTP/1.0\\r\\nHost: svc.example.com\\r\\n\\r\\n")
        print(tls.version(), tls.recv(4096).decode().split("\\r\\n")[0], tls.selected_alpn_protocol())
`;

/** Node: `argv` = https or http2, host, server name. */
const NODE = `
import https from "node:https";
import http2 from "node:http2";
const [kind, host, servername] = process.argv.slice(2);
const end = (text) => { console.log(text); process.exit(0); };
const fail = (error) => { console.error(error.code ?? error.message); process.exit(1); };
if (kind === "https") https.get({ host, servername, rejectUnauthorized: false }, (answer) => end("node https " + answer.statusCode)).on("error", fail);
else {
  const session = http2.connect("https://" + host, { servername, rejectUnauthorized: false }).on("error", fail);
  session.request({ ":path": "/" }).on("response", (headers) => end("node http2 " + headers[":status"])).on("error", fail).end();
}
`;

const openssl = (name: string, ...more: string[]): string[] => [
  "openssl",
  "s_client",
  "-connect",
  `${SVC}:443`,
  "-servername",
  name,
  ...more,
];
const TLS = { application: "tls", port: 443 };
const GOOD = /BEGIN CERTIFICATE/;

/** What the clients are, each with its words when it got through. */
function clients(it: Trial): Record<string, (name: string) => { argv: readonly string[]; says: RegExp }> {
  const python = it.lab.file("client.py", PYTHON);
  const node = it.lab.file("client.mjs", NODE);
  const curl = (name: string, ...more: string[]): string[] => [
    "curl",
    "-sSk",
    "-m",
    "8",
    "--connect-to",
    `${name}:443:${SVC}:443`,
    ...more,
    `https://${name}/curl`,
  ];
  return {
    "openssl TLS 1.2": (name) => ({ argv: openssl(name, "-tls1_2"), says: /New, TLSv1\.2/ }),
    "openssl TLS 1.3": (name) => ({ argv: openssl(name, "-tls1_3"), says: /New, TLSv1\.3/ }),
    "openssl, P-521 and ALPN": (name) => ({
      argv: openssl(name, "-groups", "P-521:X25519", "-alpn", "h2,http/1.1"),
      says: /ALPN protocol: h2/,
    }),
    "curl HTTP/1.1": (name) => ({ argv: curl(name, "--http1.1"), says: /HTTP\/1\.1 from nginx/ }),
    "curl HTTP/2": (name) => ({ argv: curl(name, "--http2"), says: /HTTP\/2\.0 from nginx/ }),
    "Node https": (name) => ({ argv: [process.execPath, node, "https", SVC, name], says: /node https 200/ }),
    "Node http2": (name) => ({ argv: [process.execPath, node, "http2", SVC, name], says: /node http2 200/ }),
    "Python ssl": (name) => ({ argv: ["/usr/bin/python3", python, SVC, name, "0"], says: /TLSv1\.3 HTTP\/1\.1 200/ }),
    "Python ssl, a ClientHello of several segments": (name) => ({
      argv: ["/usr/bin/python3", python, SVC, name, "20"],
      says: /HTTP\/1\.1 200/,
    }),
    "Python ssl, a ClientHello of two records": (name) => ({
      argv: ["/usr/bin/python3", python, SVC, name, "63"],
      says: /HTTP\/1\.1 200/,
    }),
  };
}

test("TLS clients", async (t) => {
  const it = await trial(t, ["nginx", "curl", "/usr/bin/python3"]);
  if (it === undefined) return;
  await nginx(it.lab, { plain: [8443], tls: [443] });

  for (const [client, command] of Object.entries(clients(it))) {
    await t.test(`${client}: its own server name, and another`, async () => {
      await it.rules(TLS);
      const good = command(SVC);
      const event = await it.shows(good.argv, good.says, { application: "tls", serverName: SVC });
      assert.match(event.evidence?.ja4 ?? "", /^t1[23]d\d{4}/);
      const wrong = command("evil.example.net");
      await it.denied(wrong.argv, wrong.says, "wrong-server-name", { application: "tls", serverName: "evil.example.net" });
    });
  }

  await t.test("no server name: the rule's word", async () => {
    await it.rules(TLS);
    await it.denied(["openssl", "s_client", "-connect", `${SVC}:443`, "-noservername"], GOOD, "no-server-name", { serverName: undefined });
    await it.rules({ ...TLS, tls: { missingServerName: "Allow" } });
    await it.passes(["openssl", "s_client", "-connect", `${SVC}:443`, "-noservername"], GOOD);
  });

  await t.test("a rule for another protocol", async () => {
    await it.rules({ application: "postgresql", port: 443 });
    await it.denied(openssl(SVC), GOOD, "wrong-protocol", { application: "tls", serverName: SVC });
  });

  await t.test("plain HTTP where the rule wants TLS", async () => {
    await it.rules({ application: "tls", port: 8443 });
    const plain = ["curl", "-sS", "-m", "8", `http://${SVC}:8443/`];
    await it.denied(plain, /from nginx/, "wrong-protocol", { application: "http1" });
    await it.rules({ application: "http", port: 8443 });
    await it.shows(plain, /from nginx/, { application: "http1", serverName: SVC, fields: { method: "GET", path: "/" } });
  });
});

test("openssl s_server", async (t) => {
  const it = await trial(t);
  if (it === undefined) return;
  const { key, cert } = await certificate(it.lab);
  await daemon(it.lab, ["openssl", "s_server", "-key", key, "-cert", cert, "-accept", "443", "-www", "-quiet"], { tcp: [443] });
  await it.rules(TLS);
  for (const version of ["-tls1_2", "-tls1_3"]) await it.passes(openssl(SVC, version), GOOD);
  await it.denied(openssl("evil.example.net"), GOOD, "wrong-server-name", { serverName: "evil.example.net" });
});
