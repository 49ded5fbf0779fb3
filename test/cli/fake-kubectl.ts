import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * A kubectl for tests (kubectl.test.ts puts it on the PATH): FAKE_KUBECTL names a JSON file that says what the cluster is like, and
 * FAKE_KUBECTL_LOG gets each call's arguments, one JSON array a line. Unknown calls fail, as kubectl does.
 */
export interface FakeCluster {
  /** Of the current context. */
  readonly namespace?: string;
  /** The application's pods: `namespace/name` → node. */
  readonly pods: Readonly<Record<string, string>>;
  readonly agents: readonly FakeAgent[];
}

export interface FakeAgent {
  readonly pod: string;
  readonly node: string;
  readonly phase?: string;
  readonly deleting?: boolean;
  /** Command of the agent → what it does. */
  readonly says?: Readonly<Record<string, { stdout?: string; stderr?: string; status?: number; afterMs?: number; staysMs?: number }>>;
}

const cluster = JSON.parse(readFileSync(process.env["FAKE_KUBECTL"] ?? "", "utf8")) as FakeCluster;
const args = process.argv.slice(2);
appendFileSync(process.env["FAKE_KUBECTL_LOG"] ?? "/dev/null", `${JSON.stringify(args)}\n`);
const words = args.filter((arg) => !/^--(context|kubeconfig|as)=/.test(arg));
const after = (flag: string): string | undefined => (words.includes(flag) ? words[words.indexOf(flag) + 1] : undefined);

process.exitCode = await main();

async function main(): Promise<number> {
  if (words[0] === "config") {
    process.stdout.write(JSON.stringify({ contexts: [{ name: "fake", context: { namespace: cluster.namespace } }] }));
    return 0;
  }
  if (words[0] === "get" && words[1] === "pod") {
    const key = `${after("-n")}/${words[2]}`;
    if (!Object.hasOwn(cluster.pods, key)) return fail(`Error from server (NotFound): pods "${words[2]}" not found`);
    process.stdout.write(JSON.stringify({ spec: { nodeName: cluster.pods[key] } }));
    return 0;
  }
  if (words[0] === "get" && words[1] === "pods" && after("-n") === "namegate-system" && after("-l") === "app.kubernetes.io/name=namegate") {
    const node = after("--field-selector")?.replace("spec.nodeName=", "");
    const items = cluster.agents
      .filter((agent) => node === undefined || agent.node === node)
      .map(({ pod, node: nodeName, phase = "Running", deleting = false }) => ({
        metadata: { name: pod, ...(deleting ? { deletionTimestamp: "2026-11-26T00:00:00Z" } : {}) },
        spec: { nodeName },
        status: { phase },
      }));
    process.stdout.write(JSON.stringify({ items }));
    return 0;
  }
  if (words[0] === "exec") {
    const agent = cluster.agents.find(({ pod }) => pod === words[3]);
    const [program, command = ""] = words.slice(words.indexOf("--") + 1);
    const does = agent?.says?.[command];
    if (program !== "namegate" || after("-c") !== "namegate" || does === undefined) return fail("error: unable to upgrade connection");
    await sleep(does.afterMs ?? 0);
    if (does.stdout !== undefined) process.stdout.write(does.stdout);
    if (does.stderr !== undefined) process.stderr.write(does.stderr);
    await sleep(does.staysMs ?? 0);
    return does.status ?? 0;
  }
  return fail(`error: unknown command ${JSON.stringify(args)}`);
}

function fail(text: string): number {
  process.stderr.write(`${text}\n`);
  return 1;
}
