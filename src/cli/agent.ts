import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { pino } from "pino";
import { type Agent, startAgent } from "../agent.ts";
import { stdoutSink } from "../alerts/stdout.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { filesSource } from "../control/inputs.ts";
import { HTTPS_SERVERS } from "../dns/elsewhere.ts";
import { MARK_MASK_DEFAULT } from "../firewall/marks.ts";
import { QUEUE_BASE_DEFAULT } from "../firewall/rules.ts";
import { NO_CONFIG, readConfig } from "../inputs/config/read.ts";
import { LOG_LEVELS, type Settings } from "../inputs/config/settings.ts";
import { readText } from "../inputs/files/watch.ts";
import { LIMITS_DEFAULT } from "../worker/protocol.ts";
import { options, type Output, SOCKET_DEFAULT, Usage, version } from "./usage.ts";

const STATE_DEFAULT = "/var/lib/namegate";
const METRICS_DEFAULT = "127.0.0.1:9810";
const SELF_TEST_MS = 60_000;

const USAGE = `usage: namegate agent [--config FILE] [options]
       namegate agent --policies DIR --pods FILE [options]

Pods and policies come from the Kubernetes API (the service account, or KUBECONFIG; NODE_NAME names this node), or without a cluster from

  --policies DIR          ConfigMap manifests (*.yaml), watched
  --pods FILE             the pods of this node and its resolvers, watched

  --config FILE           these options and those of the cluster, as YAML; flags go before it
  --state DIR             last good state (default ${STATE_DEFAULT})
  --socket PATH           control socket (default ${SOCKET_DEFAULT})
  --metrics ADDR:PORT     /metrics, /healthz, /readyz (default ${METRICS_DEFAULT}; off: none)
  --page on|off           the page at http://ADDR:PORT/ of --metrics, for loopback clients only (default on)
  --log-level LEVEL       trace, debug, info, warn, error (default info); logs go to stderr
  --iptables VARIANT      nft, legacy or auto (default: what the host uses)
  --mark-mask MASK        three bits of packet mark and connmark (default 0x${MARK_MASK_DEFAULT.toString(16)})
  --queue-base N          first of six NFQUEUE numbers (default ${QUEUE_BASE_DEFAULT})
  --check-interval SEC    how often the rules are looked at (default 3)
  --self-test-interval SEC  how often a canary is sent through the rules (default 60; off: never)
  --known-hellos on|off   the kernel lets a ClientHello pass that was read and found right before (default on; needs iptables-nft)
  --upcalls N             new connections of one pod judged per second (default ${LIMITS_DEFAULT.upcallsPerSecond})
  --max-bindings N        learned addresses of all pods together (default ${LIMITS_DEFAULT.bindings})
  --events N              events of one pod per second (default ${LIMITS_DEFAULT.eventsPerSecond})
  --cluster-namespace NAME  ClusterEgressPolicies count only in ConfigMaps of this namespace (default: POD_NAMESPACE; without a cluster: all)

Events go to stdout, one JSON object a line, or where \`alerts:\` of the configuration says. Rules and sets stay when the agent ends; \`namegate uninstall\` removes them.
`;

function number(name: string, text: string | undefined, otherwise: number, least: number, most: number): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isFinite(value) || value < least || value > most)
    throw new Usage(`namegate: --${name} ${text}: a number from ${least} to ${most} is wanted\n${USAGE}`);
  return value;
}

export async function agentCommand(argv: readonly string[], _out: Output): Promise<number> {
  const text = { type: "string" } as const;
  const { values, positionals } = options(argv, USAGE, {
    policies: text,
    pods: text,
    config: text,
    state: text,
    socket: text,
    metrics: text,
    page: text,
    "log-level": text,
    iptables: text,
    "mark-mask": text,
    "queue-base": text,
    "check-interval": text,
    "self-test-interval": text,
    "known-hellos": text,
    upcalls: text,
    "max-bindings": text,
    events: text,
    "cluster-namespace": text,
  });
  if (positionals.length > 0) throw new Usage(`namegate: ${positionals[0]} is not an option\n${USAGE}`);
  const config = values.config === undefined ? NO_CONFIG : configOf(values.config);
  const policies = values.policies ?? config.policies;
  const pods = values.pods ?? config.pods;
  if ((policies === undefined) !== (pods === undefined))
    throw new Usage(`namegate: --policies and --pods are needed both (or neither, in a cluster)\n${USAGE}`);
  const iptables = values.iptables ?? config.iptables ?? "auto";
  if (iptables !== "auto" && iptables !== "nft" && iptables !== "legacy")
    throw new Usage(`namegate: --iptables ${iptables}: nft, legacy or auto\n${USAGE}`);
  const level = values["log-level"] ?? config.logLevel ?? "info";
  if (!LOG_LEVELS.some((one) => one === level))
    throw new Usage(`namegate: --log-level ${level}: one of ${LOG_LEVELS.join(", ")}\n${USAGE}`);
  const metrics = values.metrics ?? config.metrics ?? METRICS_DEFAULT;
  const socket = values.socket ?? config.socket ?? SOCKET_DEFAULT;
  const given = {
    markMask: number("mark-mask", values["mark-mask"], config.markMask ?? MARK_MASK_DEFAULT, 1, 0xffffffff),
    queueBase: number("queue-base", values["queue-base"], config.queueBase ?? QUEUE_BASE_DEFAULT, 0, 65529),
    limits: {
      upcallsPerSecond: number("upcalls", values.upcalls, config.upcalls ?? LIMITS_DEFAULT.upcallsPerSecond, 1, 10_000_000),
      bindings: number("max-bindings", values["max-bindings"], config.maxBindings ?? LIMITS_DEFAULT.bindings, 1, 1_000_000),
      eventsPerSecond: number("events", values.events, config.events ?? LIMITS_DEFAULT.eventsPerSecond, 1, 100_000),
    },
    knownHellos: isOn("known-hellos", values["known-hellos"], config.knownHellos) ? dirname(socket) : undefined,
    dnsServers: config.dnsOverHttps ?? HTTPS_SERVERS,
    checkMs: number("check-interval", values["check-interval"], (config.checkMs ?? 3000) / 1000, 0.1, 3600) * 1000,
    selfTestMs: selfTestMs(values["self-test-interval"], config.selfTestMs ?? SELF_TEST_MS),
    state: values.state ?? config.state ?? STATE_DEFAULT,
    socket,
    metrics: metrics === "off" ? undefined : metrics,
    iptables,
  } as const;
  if (process.getuid?.() !== 0 && !mayAdminister()) {
    throw new Fault(
      "no-privilege",
      "enforcing needs CAP_NET_ADMIN and CAP_NET_RAW, and this process has neither root nor them",
      "run it as root: sudo namegate agent …",
    );
  }
  const wanted = stopWanted();
  const log = pino({ level }, pino.destination({ dest: 2, sync: true }));
  const clusterNamespace = values["cluster-namespace"] ?? config.clusterNamespace ?? process.env["POD_NAMESPACE"];
  const source =
    policies !== undefined && pods !== undefined
      ? filesSource({ policies, pods, clusterNamespace })
      : await (await import("./agent-cluster.ts")).openClusterSource(config.cluster, clusterNamespace, given.state, log);
  const sink = stdoutSink();
  const host = config.cluster.nodeName ?? process.env["NODE_NAME"] ?? hostname();
  const page = isOn("page", values.page, config.page) ? { host, version: version() } : undefined;
  const alerts =
    config.alerts === undefined
      ? undefined
      : { settings: config.alerts, origin: { host, version: version(), cluster: config.alerts.cluster } };
  let died = (): void => undefined;
  const death = new Promise<2>((resolve) => {
    died = () => resolve(2);
  });
  const starting = startAgent({ ...given, page, source, onDeath: () => died(), log, alerts, event: (line) => sink.write(line) });
  const agent = await Promise.race([starting, wanted]);
  if (agent === undefined) return 0; // while it was starting: every commit of rules is whole, and what is there stays
  return Promise.race([death, wanted.then(() => stopped(agent, log))]);
}

function isOn(name: string, flag: string | undefined, otherwise = true): boolean {
  if (flag === undefined) return otherwise;
  if (flag !== "on" && flag !== "off") throw new Usage(`namegate: --${name} ${flag}: on or off\n${USAGE}`);
  return flag === "on";
}

/** Milliseconds between two self-tests; undefined: none. */
function selfTestMs(flag: string | undefined, otherwise: number): number | undefined {
  const ms = flag === "off" ? 0 : number("self-test-interval", flag, otherwise / 1000, 0, 3600) * 1000;
  return ms === 0 ? undefined : ms;
}

/** With any problem the agent does not start: a misspelt option must not be none. */
function configOf(file: string): Settings {
  const { text, why } = readText(file);
  if (text === undefined) throw new Fault("config", `--config ${file} cannot be read: ${why}`, "name a readable file");
  const { settings, problems } = readConfig(file, text);
  if (settings !== undefined) return settings;
  const lines = problems.map(
    ({ line, column, path, message, hint }) =>
      `  ${file}:${line}:${column}: ${path === "" ? "" : `${path}: `}${message}${hint === undefined ? "" : ` (${hint})`}`,
  );
  throw new Fault(
    "config",
    `${file} has ${problems.length} problem${problems.length === 1 ? "" : "s"}\n${lines.join("\n")}`,
    "correct them all; the agent does not start with a configuration that it does not understand",
  );
}

/** From the first moment on: a signal that nobody handles ends a process with no word, and with the wrong status. */
function stopWanted(): Promise<undefined> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => resolve(undefined));
  });
}

async function stopped(
  agent: Agent,
  log: { info: (message: string) => void; error: (detail: object, message: string) => void },
): Promise<0> {
  log.info("stopping; rules and sets stay");
  await agent.stop().catch((error: unknown) => log.error({ error: messageOf(error) }, "stopping failed"));
  return 0;
}

/** CAP_NET_ADMIN (12) and CAP_NET_RAW (13) in the effective set (proc(5)). */
function mayAdminister(): boolean {
  try {
    const set = BigInt(`0x${/CapEff:\s*([0-9a-f]+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`);
    return (set & 0x3000n) === 0x3000n;
  } catch {
    return false;
  }
}
