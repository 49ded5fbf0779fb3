import { readFileSync } from "node:fs";
import { pino } from "pino";
import { type Agent, startAgent } from "../agent.ts";
import { stdoutSink } from "../alerts/stdout.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { MARK_MASK_DEFAULT } from "../firewall/marks.ts";
import { QUEUE_BASE_DEFAULT } from "../firewall/rules.ts";
import { LIMITS_DEFAULT } from "../worker/protocol.ts";
import { options, type Output, SOCKET_DEFAULT, Usage } from "./usage.ts";

const USAGE = `usage: namegate agent --policies DIR --pods FILE [options]

  --policies DIR          ConfigMap manifests (*.yaml), watched
  --pods FILE             the pods of this node and its resolvers, watched
  --state DIR             last good policies (default /var/lib/namegate)
  --socket PATH           control socket (default ${SOCKET_DEFAULT})
  --metrics ADDR:PORT     /metrics, /healthz, /readyz (default 127.0.0.1:9810; off: none)
  --log-level LEVEL       trace, debug, info, warn, error (default info); logs go to stderr
  --iptables VARIANT      nft, legacy or auto (default: what the host uses)
  --mark-mask MASK        three bits of packet mark and connmark (default 0x${MARK_MASK_DEFAULT.toString(16)})
  --queue-base N          first of six NFQUEUE numbers (default ${QUEUE_BASE_DEFAULT})
  --check-interval SEC    how often the rules are looked at (default 3)
  --self-test-interval SEC  how often a canary is sent through the rules (default 30; off: never)
  --upcalls N             new connections of one pod judged per second (default ${LIMITS_DEFAULT.upcallsPerSecond})
  --max-bindings N        learned addresses of all pods together (default ${LIMITS_DEFAULT.bindings})
  --events N              events of one pod per second (default ${LIMITS_DEFAULT.eventsPerSecond})
  --cluster-namespace NAME  ClusterEgressPolicies count only in ConfigMaps of this namespace (default: in all)

Events go to stdout, one JSON object a line. Rules and sets stay when the agent ends; \`namegate uninstall\` removes them.
`;

const LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"];

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
    "log-level": text,
    iptables: text,
    "mark-mask": text,
    "queue-base": text,
    "check-interval": text,
    "self-test-interval": text,
    upcalls: text,
    "max-bindings": text,
    events: text,
    "cluster-namespace": text,
  });
  if (positionals.length > 0) throw new Usage(`namegate: ${positionals[0]} is not an option\n${USAGE}`);
  if (values.config !== undefined || values.policies === undefined || values.pods === undefined) {
    throw new Usage(
      `namegate: ${values.config === undefined ? "--policies and --pods are both needed" : "--config: reading pods and policies from the Kubernetes API is not in this version"}\n${USAGE}`,
    );
  }
  const iptables = values.iptables ?? "auto";
  if (iptables !== "auto" && iptables !== "nft" && iptables !== "legacy")
    throw new Usage(`namegate: --iptables ${iptables}: nft, legacy or auto\n${USAGE}`);
  const level = values["log-level"] ?? "info";
  if (!LEVELS.includes(level)) throw new Usage(`namegate: --log-level ${level}: one of ${LEVELS.join(", ")}\n${USAGE}`);
  if (process.getuid?.() !== 0 && !mayAdminister()) {
    throw new Fault(
      "no-privilege",
      "enforcing needs CAP_NET_ADMIN and CAP_NET_RAW, and this process has neither root nor them",
      "run it as root: sudo namegate agent …",
    );
  }
  const log = pino({ level }, pino.destination({ dest: 2, sync: true }));
  const sink = stdoutSink();
  let died = (): void => undefined;
  const death = new Promise<2>((resolve) => {
    died = () => resolve(2);
  });
  const agent = await startAgent({
    onDeath: () => died(),
    policies: values.policies,
    pods: values.pods,
    state: values.state ?? "/var/lib/namegate",
    socket: values.socket ?? SOCKET_DEFAULT,
    metrics: values.metrics === "off" ? undefined : (values.metrics ?? "127.0.0.1:9810"),
    iptables,
    markMask: number("mark-mask", values["mark-mask"], MARK_MASK_DEFAULT, 1, 0xffffffff),
    queueBase: number("queue-base", values["queue-base"], QUEUE_BASE_DEFAULT, 0, 65529),
    clusterNamespace: values["cluster-namespace"] ?? process.env["POD_NAMESPACE"],
    limits: {
      upcallsPerSecond: number("upcalls", values.upcalls, LIMITS_DEFAULT.upcallsPerSecond, 1, 10_000_000),
      bindings: number("max-bindings", values["max-bindings"], LIMITS_DEFAULT.bindings, 1, 1_000_000),
      eventsPerSecond: number("events", values.events, LIMITS_DEFAULT.eventsPerSecond, 1, 100_000),
    },
    checkMs: number("check-interval", values["check-interval"], 3, 0.1, 3600) * 1000,
    selfTestMs:
      values["self-test-interval"] === "off" ? undefined : number("self-test-interval", values["self-test-interval"], 30, 0.1, 3600) * 1000,
    log,
    event: (line) => sink.write(line),
  });
  return Promise.race([death, ended(agent, log)]);
}

function ended(agent: Agent, log: { info: (message: string) => void; error: (detail: object, message: string) => void }): Promise<0> {
  return new Promise<0>((resolve) => {
    const stop = (): void => {
      log.info("stopping; rules and sets stay");
      agent.stop().then(
        () => resolve(0),
        (error: unknown) => {
          log.error({ error: messageOf(error) }, "stopping failed");
          resolve(0);
        },
      );
    };
    process.once("SIGTERM", stop);
    process.once("SIGINT", stop);
  });
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
