import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { RequestOptions } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { KubeConfig } from "@kubernetes/client-node";
import { Fault } from "../../src/base/fault.ts";
import { openCluster } from "../../src/inputs/kubernetes/cluster.ts";
import { findCredentials, serviceAccountSource } from "../../src/inputs/kubernetes/credentials.ts";
import { permissionOf } from "../../src/inputs/kubernetes/faults.ts";
import { kubeconfigOf } from "../support/apiserver.ts";
import { FakeApi } from "../support/fake-api.ts";
import { need } from "../support/need.ts";

const now = (): number => performance.now();

function folder(t: TestContext): string {
  const made = mkdtempSync(join(tmpdir(), "namegate-cluster-"));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** A certificate for 127.0.0.1 and a name, valid for itself. */
function certificate(dir: string, name: string): { key: string; cert: string; file: string } {
  const file = join(dir, `${name}.crt`);
  const keyFile = join(dir, `${name}.key`);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyFile, "-out", file];
  const subject = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=IP:127.0.0.1,DNS:${name}`];
  execFileSync("openssl", ["req", "-x509", "-days", "2", ...key, ...subject], { stdio: "ignore" });
  return { key: readFileSync(keyFile, "utf8"), cert: readFileSync(file, "utf8"), file };
}

/** A service account's folder, as the kubelet mounts it. */
function serviceAccount(dir: string, token: string, ca: string): string {
  const account = join(dir, "var/run/secrets/kubernetes.io/serviceaccount");
  mkdirSync(account, { recursive: true });
  writeFileSync(join(account, "token"), token);
  writeFileSync(join(account, "ca.crt"), ca);
  return account;
}

function kubeconfig(dir: string, content: unknown): string {
  const file = join(dir, "config");
  writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
  return file;
}

async function faultOf(promise: Promise<unknown>): Promise<Fault> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof Fault, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: "it did not fail" });
}

test("nothing configured: what was looked for, and what to do", async (t) => {
  const fault = await faultOf(openCluster({ env: { HOME: folder(t) }, now }));
  assert.equal(fault.code, "kubernetes-no-config");
  assert.match(
    fault.message,
    /KUBECONFIG is not set, KUBERNETES_SERVICE_HOST is not set, so this is no pod, and .*\/\.kube\/config does not exist/,
  );
  assert.match(fault.fix, /set KUBECONFIG.*--policies DIR --pods FILE/);
});

test("what somebody names comes before the service account, and that before the user's file", (t) => {
  const dir = folder(t);
  const account = serviceAccount(dir, "t", "c");
  mkdirSync(join(dir, ".kube"));
  const own = join(dir, ".kube", "config");
  writeFileSync(own, "");
  const pod = { HOME: dir, KUBERNETES_SERVICE_HOST: "10.96.0.1", KUBERNETES_SERVICE_PORT: "443" };
  const found = (env: Record<string, string>, more = {}): string => findCredentials({ env, serviceAccount: account, ...more }).source;
  assert.equal(found({ ...pod, KUBECONFIG: "/a:/b" }, { kubeconfig: "/c" }), "/c");
  assert.equal(found({ ...pod, KUBECONFIG: "/a:/b" }), "/a, /b");
  assert.equal(found(pod), `the service account in ${account}`);
  assert.equal(found({ HOME: dir }), own);
});

test("a service account is read as client-node reads it", async (t) => {
  const dir = folder(t);
  const account = serviceAccount(dir, "a-token", "a certificate\n");
  for (const host of ["10.96.0.1", "fd00::1"]) {
    const before = { ...process.env };
    Object.assign(process.env, { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: "6443" });
    t.after(() => (process.env = before));
    const config = new KubeConfig();
    config.loadFromCluster(dir);
    const options: RequestOptions = {};
    await config.applyToHTTPSOptions(options);
    const ours = await serviceAccountSource(account, host, "6443").read();
    assert.deepEqual(ours, {
      ok: true,
      value: {
        server: config.getCurrentCluster()?.server,
        tls: { ca: String(options.ca) },
        headers: { Authorization: (options.headers as Record<string, string>).Authorization },
      },
    });
  }
});

test("a service account's token is read again every minute, and at once when the server refuses it", async (t) => {
  if (!need(t, { commands: ["openssl"] })) return;
  const dir = folder(t);
  const tls = certificate(dir, "api");
  const api = await new FakeApi(tls).listen();
  const account = serviceAccount(dir, "one\n", tls.cert);
  let time = 0;
  const env = { KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: String(api.port) };
  const cluster = await openCluster({ env, serviceAccount: account, now: () => time });
  t.after(() => {
    cluster.close();
    api.close();
  });
  const token = join(account, "token");
  const used = (): string[] => api.asked.splice(0).map(({ authorization }) => authorization);
  api.tokens.add("one");
  assert.ok((await cluster.get(api.path)).ok);
  writeFileSync(token, "two");
  time = 59_000;
  await cluster.get(api.path);
  time = 61_000;
  await cluster.get(api.path);
  assert.deepEqual(used(), ["Bearer one", "Bearer one", "Bearer two"], "the third was refused, and there was nothing newer to try");
  api.tokens.add("two");
  assert.ok((await cluster.get(api.path)).ok);
  writeFileSync(token, "three");
  api.tokens.clear();
  api.tokens.add("three");
  time += 15_000;
  assert.ok((await cluster.get(api.path)).ok, "refused, read again, accepted");
  assert.deepEqual(used(), ["Bearer two", "Bearer two", "Bearer three"]);
  writeFileSync(token, "four");
  api.tokens.clear();
  api.tokens.add("four");
  time -= 30_000;
  assert.ok((await cluster.get(api.path)).ok, "the clock was set back");
  assert.deepEqual(used(), ["Bearer four"]);
  rmSync(token);
  time += 100_000;
  assert.ok((await cluster.get(api.path)).ok, "a token that cannot be read now is used as long as it is good");
});

const UNREACHABLE: readonly (readonly [
  string,
  (t: TestContext, dir: string) => Promise<{ server: string; ca: string }>,
  RegExp,
  RegExp,
])[] = [
  [
    "refused",
    async (_, dir) => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const { port } = server.address() as { port: number };
      await new Promise((resolve) => server.close(resolve));
      return { server: `https://127.0.0.1:${port}`, ca: certificate(dir, "api").file };
    },
    /^https:\/\/127\.0\.0\.1:\d+: connection refused$/,
    /is the API server running there\? The address is from .*config/,
  ],
  [
    "no such name",
    (_, dir) => Promise.resolve({ server: "https://no-such-name.invalid", ca: certificate(dir, "api").file }),
    /the name cannot be resolved/,
    /./,
  ],
  [
    "another certificate authority",
    async (t, dir) => {
      const api = await new FakeApi(certificate(dir, "api")).listen();
      t.after(() => api.close());
      return { server: api.url, ca: certificate(dir, "other").file };
    },
    /TLS failed: .*DEPTH_ZERO_SELF_SIGNED_CERT/,
    /certificate authority and the server name/,
  ],
  [
    "no TLS at all",
    async (t, dir) => {
      const api = await new FakeApi().listen();
      t.after(() => api.close());
      return { server: api.url.replace("http:", "https:"), ca: certificate(dir, "other").file };
    },
    /TLS failed: /,
    /certificate authority and the server name/,
  ],
];

for (const [what, make, message, fix] of UNREACHABLE) {
  test(`no connection: ${what}`, async (t) => {
    if (!need(t, { commands: ["openssl"] })) return;
    const dir = folder(t);
    const { server, ca } = await make(t, dir);
    const cluster = await openCluster({ env: {}, kubeconfig: kubeconfig(dir, kubeconfigOf(server, ca, "t")), now });
    t.after(() => cluster.close());
    const answer = await cluster.get("/api/v1/pods");
    assert.ok(!answer.ok);
    assert.match(answer.fault.message, message);
    assert.match(answer.fault.fix, fix);
  });
}

test("a kubeconfig: token, client certificate, name and password, an exec plugin that is asked again, and what is wrong with it", async (t) => {
  if (!need(t, { commands: ["openssl"] })) return;
  const dir = folder(t);
  const tls = certificate(dir, "api");
  const api = await new FakeApi(tls).listen();
  t.after(() => api.close());
  const env = { PATH: process.env.PATH, HOME: dir };
  const base = kubeconfigOf(api.url, tls.file, "t") as { users: unknown[]; contexts: unknown[]; clusters: unknown[] };
  const read = (content: unknown) => findCredentials({ env, kubeconfig: kubeconfig(dir, content) }).read();
  const user = (content: unknown) => ({ ...base, users: [{ name: "test", user: content }] });

  const withToken = await read(base);
  assert.deepEqual(withToken, { ok: true, value: { server: api.url, tls: { ca: tls.cert }, headers: { Authorization: "Bearer t" } } });
  const withCertificate = await read(user({ "client-certificate": "api.crt", "client-key": "api.key" }));
  assert.ok(withCertificate.ok);
  assert.deepEqual([withCertificate.value.tls.cert, withCertificate.value.tls.key], [tls.cert, tls.key], "paths are relative to the file");
  const withPassword = await read(user({ username: "u", password: "p" }));
  assert.ok(withPassword.ok && withPassword.value.headers.Authorization === "Basic dTpw");

  const tokens = join(dir, "token.json");
  const give = (token: string): void =>
    writeFileSync(tokens, JSON.stringify({ apiVersion: "client.authentication.k8s.io/v1", kind: "ExecCredential", status: { token } }));
  give("first");
  let time = 0;
  const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "cat", args: [tokens] };
  const cluster = await openCluster({ env, kubeconfig: kubeconfig(dir, user({ exec })), now: () => time });
  t.after(() => cluster.close());
  api.tokens.add("first");
  assert.ok((await cluster.get(api.path)).ok);
  give("second");
  api.tokens.clear();
  api.tokens.add("second");
  const soon = await cluster.get(api.path);
  assert.ok(!soon.ok && soon.fault.kind === "unauthorized", "not asked again within ten seconds");
  assert.match(soon.fault.message, /^list things: 401 Unauthorized$/);
  assert.match(soon.fault.fix, /does not know the credentials of .*config: renew them/);
  time = 11_000;
  assert.ok((await cluster.get(api.path)).ok);

  const wrong = async (content: unknown): Promise<string> => {
    const answer = await read(content);
    assert.ok(!answer.ok);
    return `${answer.fault.message.replace(dir, "")} | ${answer.fault.fix}`;
  };
  assert.match(await wrong("{"), /^\/config: cannot be read: .* \| name a kubeconfig file/);
  assert.match(
    await wrong({ ...base, "current-context": "no" }),
    /its current-context \(no\) names no cluster \| kubectl config use-context test/,
  );
  assert.match(await wrong(user({ "client-certificate": "gone.crt" })), /cannot log in: .*gone\.crt/);
  assert.match(await wrong(user({ exec: { ...exec, command: "false", args: [] } })), /cannot log in/);
  const proxied = { name: "test", cluster: { server: api.url, "proxy-url": "http://proxy" } };
  assert.match(await wrong({ ...base, clusters: [proxied] }), /proxy-url is not supported/);
  const gone = await findCredentials({ env, kubeconfig: join(dir, "gone") }).read();
  assert.ok(!gone.ok && /ENOENT/.test(gone.fault.message));
});

test("the Role that a request needs is read off it", () => {
  const rows: readonly (readonly [string, string, string])[] = [
    ["GET", "/api/v1/pods?fieldSelector=x", "list pods  -"],
    ["GET", "/api/v1/pods?watch=true", "watch pods  -"],
    ["GET", "/api/v1/namespaces", "list namespaces  -"],
    ["GET", "/api/v1/namespaces/shop", "get namespaces  -"],
    ["GET", "/api/v1/namespaces/shop/configmaps/a", "get configmaps  shop"],
    ["POST", "/api/v1/namespaces/shop/events", "create events  shop"],
    ["PATCH", "/api/v1/nodes/n", "patch nodes  -"],
    ["PATCH", "/api/v1/nodes/n/status", "patch nodes/status  -"],
    ["GET", "/apis/discovery.k8s.io/v1/endpointslices?watch=true", "watch endpointslices discovery.k8s.io -"],
    ["GET", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", "list endpointslices discovery.k8s.io shop"],
  ];
  for (const [method, path, wanted] of rows) {
    const { verb, resource, group, namespace } = permissionOf(method, path);
    assert.equal(`${verb} ${resource} ${group} ${namespace ?? "-"}`, wanted, path);
  }
});

test("a connection that was closed while nobody used it is not an error", async (t) => {
  const api = await new FakeApi().listen();
  const dir = folder(t);
  const config = {
    ...kubeconfigOf(api.url, "", "t"),
    clusters: [{ name: "test", cluster: { server: api.url, "insecure-skip-tls-verify": true } }],
  };
  const cluster = await openCluster({ env: {}, kubeconfig: kubeconfig(dir, config), now });
  t.after(() => {
    cluster.close();
    api.close();
  });
  for (let i = 0; i < 5; i++) {
    assert.ok((await cluster.get(api.path)).ok);
    api.cut();
  }
});
