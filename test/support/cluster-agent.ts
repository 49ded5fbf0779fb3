import { createConnection, createServer, type Socket } from "node:net";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { until } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { MAIN, running, socketOf, type TestAgent } from "./agent.ts";

/** The Node whose agent the tests start. */
export const NODE = "node-1";

const RELAY = `
import { connect, createServer } from "node:net";
const [port, path] = process.argv.slice(1);
createServer((client) => {
  const up = connect(path);
  client.on("error", () => up.destroy()).on("close", () => up.destroy()).pipe(up);
  up.on("error", () => client.destroy()).on("close", () => client.destroy()).pipe(client);
}).listen(Number(port), "127.0.0.1", () => console.log("up"));
`;

/**
 * The way from the node's namespace to an API server on the host's loopback: a relay in the namespace listens on the same address and
 * port, and what comes in there goes over a unix socket, which knows no network namespaces, and through this process. Returns a switch
 * that keeps everything waiting.
 */
export async function relay(t: Pick<TestContext, "after">, lab: Lab, port: number): Promise<(on: boolean) => void> {
  const path = join(lab.dir, "api.sock");
  let stalled = false;
  const waiting = new Set<() => void>();
  const open = new Set<Socket>();
  const server = createServer((client) => {
    open.add(client);
    client.on("error", () => undefined).on("close", () => open.delete(client));
    client.pause();
    const go = (): void => {
      const up = createConnection({ host: "127.0.0.1", port });
      up.on("error", () => client.destroy()).on("close", () => client.destroy());
      client.on("close", () => up.destroy()).pipe(up);
      up.pipe(client);
    };
    if (stalled) waiting.add(go);
    else go();
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  const child = lab.script("node", RELAY, [String(port), path]);
  await until("the relay is up", () => child.out.includes("up"));
  return (on) => {
    stalled = on;
    if (on) for (const socket of open) socket.destroy();
    else for (const go of waiting) go();
    waiting.clear();
  };
}

export interface ClusterStart {
  /** The file of a kubeconfig. */
  readonly kubeconfig: string;
  /** The file of `--config`. */
  readonly config?: object;
  /** Waits until it says so. Default true. */
  readonly ready?: boolean;
  /** What is run in place of the program beside this file. */
  readonly program?: readonly string[];
  /** More of the environment, `NAME=value`. */
  readonly env?: readonly string[];
}

/** The agent of NODE, in the lab's node namespace. */
export function startClusterAgent(
  lab: Lab,
  { kubeconfig, config = {}, ready = true, program = [process.execPath, MAIN], env = [] }: ClusterStart,
): Promise<TestAgent> {
  const file = lab.file("config.yaml", JSON.stringify({ iptables: "nft", metrics: "off", ...config }));
  const variables = [`NODE_NAME=${NODE}`, "POD_NAMESPACE=namegate", `KUBECONFIG=${kubeconfig}`, ...env];
  const places = ["--state", join(lab.dir, "state"), "--socket", socketOf(lab)];
  return running(lab, lab.spawn("node", ["env", ...variables, ...program, "agent", "--config", file, ...places]), ready);
}
