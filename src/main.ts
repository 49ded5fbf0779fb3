#!/usr/bin/env node
import "./base/nursery.ts";
import { type Output, Usage, version } from "./cli/usage.ts";
import { Fault, messageOf } from "./base/fault.ts";

interface Command {
  readonly does: string;
  /** Loaded when it is asked for: `check` needs no firewall, and the agent no demo. */
  readonly load: () => Promise<(argv: readonly string[], out: Output) => Promise<number>>;
}

const COMMANDS: Readonly<Record<string, Command>> = {
  agent: {
    does: "enforce on this node: in a cluster [--config FILE], or alone --policies DIR --pods FILE",
    load: async () => (await import("./cli/agent.ts")).agentCommand,
  },
  status: { does: "what the running agent enforces: [-o json]", load: async () => (await import("./cli/status.ts")).status },
  observe: {
    does: "events as they happen, or of a file: [filters] [-o compact|table|json] [--top KEYS] [--last N]",
    load: async () => (await import("./cli/observe.ts")).observe,
  },
  explain: {
    does: "why a connection was or would be allowed or denied: ID, or --pod NS/NAME --to HOST:PORT",
    load: async () => (await import("./cli/explain.ts")).explain,
  },
  unused: {
    does: "rules that nobody used on this node: [--since 30d] [--policy NAME] [-o json]",
    load: async () => (await import("./cli/unused.ts")).unused,
  },
  check: { does: "are these policy files valid? FILE… [-o json]", load: async () => (await import("./cli/check.ts")).check },
  replay: {
    does: "judge a capture file offline: CAPTURE [--policies DIR] [--pods FILE] [-o json]",
    load: async () => (await import("./cli/replay.ts")).replay,
  },
  demo: {
    does: "pods, a resolver and servers in network namespaces, guarded before your eyes",
    load: async () => (await import("./cli/demo.ts")).demo,
  },
  doctor: { does: "can this node enforce?", load: async () => (await import("./cli/doctor.ts")).doctor },
  uninstall: {
    does: "remove every rule and set of namegate from this node",
    load: async () => (await import("./cli/uninstall.ts")).uninstall,
  },
};

const out: Output = { stdout: process.stdout, stderr: process.stderr };

function help(): string {
  const lines = Object.entries(COMMANDS).map(([name, { does }]) => `  ${name.padEnd(10)} ${does}`);
  return `namegate ${version()}: which names and protocols a pod may speak to\n\nusage: namegate COMMAND [options]\n\n${lines.join("\n")}\n\n\`namegate COMMAND --help\` tells more. Exit codes: 0 done, 1 something found wrong, 2 wrong usage or cannot run.\n`;
}

async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    (name === undefined ? out.stderr : out.stdout).write(help());
    return name === undefined ? 2 : 0;
  }
  if (name === "version" || name === "--version") {
    out.stdout.write(`${version()}\n`);
    return 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    out.stderr.write(`namegate: there is no command ${JSON.stringify(name)}\n  fix: one of ${Object.keys(COMMANDS).join(", ")}\n`);
    return 2;
  }
  try {
    const run = await command.load();
    return await run(rest, out);
  } catch (error) {
    if (error instanceof Usage) {
      (error.asked ? out.stdout : out.stderr).write(error.message.endsWith("\n") ? error.message : `${error.message}\n`);
      return error.asked ? 0 : 2;
    }
    out.stderr.write(`namegate ${name}: ${messageOf(error)}\n`);
    if (error instanceof Fault) out.stderr.write(`  fix: ${error.fix}\n`);
    else if (error instanceof Error) out.stderr.write(`${error.stack ?? ""}\n`);
    return 2;
  }
}

// A reader that goes away (`| head`) is no fault of ours.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE" && process.argv[2] !== "agent") process.exit(0);
});
process.exitCode = await main(process.argv.slice(2));
// A pending timer or socket must not keep a finished command alive; output is flushed first.
if (process.stdout.writableLength === 0) process.exit();
else process.stdout.once("drain", () => process.exit());
