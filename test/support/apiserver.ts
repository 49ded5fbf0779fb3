import { generateKeyPairSync, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request as httpsRequest } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Child, until } from "../../src/cli/lab-process.ts";

/** What `need()` must be asked for before `startApiServer()`. */
export const API_SERVER = { env: ["KUBEBUILDER_ASSETS"] } as const;

/** `admin` may do everything, the others nothing until `grant`. `agent` is the service account namegate/namegate. */
export type User = "admin" | "agent" | "nobody";

const NAMES: Readonly<Record<User, string>> = { admin: "admin", agent: "system:serviceaccount:namegate:namegate", nobody: "nobody" };
const READY_MS = 60_000;

export interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

export interface ApiAnswer {
  readonly status: number;
  readonly body: unknown;
}

/** A real kube-apiserver and etcd on free ports of loopback, in a temporary folder. No kubelet, no scheduler, no controllers. */
export interface ApiServer {
  /** `https://127.0.0.1:PORT` */
  readonly url: string;
  readonly port: number;
  readonly dir: string;
  /** The file that verifies its certificate. */
  readonly caFile: string;
  token(user: User): string;
  /** The path of a kubeconfig for this user. */
  kubeconfig(user?: User): string;
  /** As admin; `body` is sent as JSON, a PATCH as a strategic merge. Rejects when there is no connection. */
  request(method: string, path: string, body?: unknown): Promise<ApiAnswer>;
  /** The same, and throws at any status but 2xx. */
  must(method: string, path: string, body?: unknown): Promise<Record<string, unknown>>;
  /** A ClusterRole with these rules, bound to the user; replaces what was granted before. */
  grant(user: Exclude<User, "admin">, rules: readonly Rule[]): Promise<void>;
  /** A pod on a node, running, with its addresses (the first is `podIP`). The namespace must exist. */
  createPod(pod: TestPod): Promise<Record<string, unknown>>;
  /** kill -9 of the API server; etcd goes on. */
  kill(): Promise<void>;
  /** Starts it again on the same port, and waits until it is ready. */
  restart(): Promise<void>;
  /** Ends both and removes the folder. */
  stop(): Promise<void>;
}

export interface TestPod {
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly addresses?: readonly string[];
  /** More of `spec`. */
  readonly spec?: Readonly<Record<string, unknown>>;
}

/** Two to seven seconds. Tokens, RBAC, no admission of service accounts. */
export async function startApiServer(): Promise<ApiServer> {
  const assets = process.env.KUBEBUILDER_ASSETS as string;
  const dir = mkdtempSync(join(tmpdir(), "namegate-apiserver-"));
  const [port, client, peer] = (await freePorts(3)) as [number, number, number];
  const tokens = Object.fromEntries(Object.keys(NAMES).map((user) => [user, randomBytes(16).toString("hex")])) as Record<User, string>;
  const groups: Readonly<Record<User, string>> = { admin: "system:masters", agent: "system:serviceaccounts", nobody: "nobodies" };
  const lines = (Object.keys(NAMES) as User[]).map((user) => `${tokens[user]},${NAMES[user]},${user},"${groups[user]}"`);
  writeFileSync(join(dir, "tokens.csv"), `${lines.join("\n")}\n`);
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const key = join(dir, "sa.key");
  writeFileSync(key, privateKey.export({ type: "pkcs1", format: "pem" }), { mode: 0o600 });

  const etcdUrl = `http://127.0.0.1:${client}`;
  const etcd = new Child([
    join(assets, "etcd"),
    "--data-dir",
    join(dir, "etcd"),
    "--listen-client-urls",
    etcdUrl,
    "--advertise-client-urls",
    etcdUrl,
    "--listen-peer-urls",
    `http://127.0.0.1:${peer}`,
    "--log-level",
    "error",
  ]);
  let server: Child | undefined;
  const endAll = (): void => {
    server?.kill("SIGKILL");
    etcd.kill("SIGKILL");
  };
  process.once("exit", endAll);

  const url = `https://127.0.0.1:${port}`;
  const caFile = join(dir, "apiserver.crt");
  const ask = (method: string, path: string, body?: unknown): Promise<ApiAnswer> =>
    askServer({ port, caFile, token: tokens.admin, method, path, body });
  const must: ApiServer["must"] = async (method, path, body) => {
    const answer = await ask(method, path, body);
    if (answer.status < 200 || answer.status > 299) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body as Record<string, unknown>;
  };
  const start = async (): Promise<void> => {
    const child = new Child([
      join(assets, "kube-apiserver"),
      `--etcd-servers=${etcdUrl}`,
      `--secure-port=${port}`,
      "--bind-address=127.0.0.1",
      `--cert-dir=${dir}`,
      "--authorization-mode=RBAC",
      `--token-auth-file=${join(dir, "tokens.csv")}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${key}`,
      `--service-account-signing-key-file=${key}`,
      "--service-cluster-ip-range=10.96.0.0/16",
      "--disable-admission-plugins=ServiceAccount",
    ]);
    server = child;
    await until(
      "the API server is ready",
      async () => {
        if (child.status !== undefined) throw new Error(`it ended: ${child.err.slice(-5).join("\n")}`);
        return (await ask("GET", "/readyz")).status === 200;
      },
      READY_MS,
      100,
    );
  };
  const kill = async (): Promise<void> => {
    server?.kill("SIGKILL");
    await server?.exited;
  };
  const stop = async (): Promise<void> => {
    process.off("exit", endAll);
    endAll();
    await Promise.all([server?.exited, etcd.exited]);
    rmSync(dir, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url,
    port,
    dir,
    caFile,
    request: ask,
    must,
    kill,
    restart: start,
    stop,
    token: (user) => tokens[user],
    kubeconfig: (user = "admin") => {
      const file = join(dir, `${user}.kubeconfig`);
      writeFileSync(file, JSON.stringify(kubeconfigOf(url, caFile, tokens[user])), { mode: 0o600 });
      return file;
    },
    grant: async (user, rules) => {
      const group = "/apis/rbac.authorization.k8s.io/v1";
      const name = `test-${user}`;
      await ask("DELETE", `${group}/clusterroles/${name}`);
      await must("POST", `${group}/clusterroles`, { metadata: { name }, rules });
      await ask("POST", `${group}/clusterrolebindings`, {
        metadata: { name },
        roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name },
        subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: NAMES[user] }],
      });
    },
    createPod: async ({ namespace, name, node, labels = {}, addresses = [], spec = {} }) => {
      const path = `/api/v1/namespaces/${namespace}/pods`;
      const container = { name: "main", image: "none" };
      const made = await must("POST", path, {
        metadata: { name, namespace, labels },
        spec: { nodeName: node, containers: [container], ...spec },
      });
      if (addresses.length === 0) return made;
      const status = { phase: "Running", podIP: addresses[0], podIPs: addresses.map((ip) => ({ ip })) };
      return must("PATCH", `${path}/${name}/status`, { status });
    },
  };
}

export function kubeconfigOf(server: string, caFile: string, token: string): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    clusters: [{ name: "test", cluster: { server, "certificate-authority": caFile } }],
    users: [{ name: "test", user: { token } }],
  };
}

interface Question {
  readonly port: number;
  readonly caFile: string;
  readonly token: string;
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

/** Of its own, not the client that is tested. */
function askServer({ port, caFile, token, method, path, body }: Question): Promise<ApiAnswer> {
  return new Promise((resolve, reject) => {
    const type = method === "PATCH" ? "application/strategic-merge-patch+json" : "application/json";
    const headers = { authorization: `Bearer ${token}`, "content-type": type };
    const ca = readFileSync(caFile);
    const sent = httpsRequest({ host: "127.0.0.1", port, method, path, headers, ca, timeout: 10_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (piece: string) => {
        text += piece;
      });
      response.on("error", reject);
      response.on("end", () => {
        const json = response.headers["content-type"]?.includes("json") === true;
        resolve({ status: response.statusCode ?? 0, body: json ? JSON.parse(text) : text });
      });
    });
    sent.on("error", reject);
    sent.on("timeout", () => sent.destroy(new Error("no answer in 10 s")));
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer().on("error", reject);
          server.listen(0, "127.0.0.1", () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
