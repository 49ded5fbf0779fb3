import { relative } from "node:path";
import { Fault } from "../base/fault.ts";
import { FIGURES, type Figure, ms, type Outcome, type Part, type Scene } from "./demo-play.ts";
import { BEFORE, PARTS } from "./demo-scenes.ts";
import { build, document, MAIN, OUTSIDE, POLICIES, type World } from "./demo-world.ts";
import { createLab } from "./lab.ts";
import type { Lab } from "./lab-types.ts";
import { eventText } from "./event-text.ts";
import { BOLD, DIM, GREEN, type Paint, painter, RED } from "./terminal.ts";
import { table } from "./status.ts";
import { options, type Output, Usage } from "./usage.ts";

const USAGE = `usage: namegate demo [--keep]

Builds a small cluster node in network namespaces (pods, a resolver, an outside world), starts the agent there as on a real
node, and plays what pods may and may not do. Every figure is measured. Nothing of this machine's own network is touched,
and nothing is left behind.

  --keep    afterwards leaves everything running, says how to look around, and waits for Ctrl-C

exit code: 0 everything came out as it should, 1 something did not, 2 wrong usage or cannot run
`;

/** Shell convention: ended by a signal. */
const INTERRUPTED = 130;

const CYAN = 36;
type Say = (text: string) => void;

/** `namegate demo`: what a newcomer sees first; returns the exit code. */
export async function demo(argv: readonly string[], out: Output): Promise<number> {
  const { values, positionals } = options(argv, USAGE, { keep: { type: "boolean" } });
  if (positionals.length > 0) throw new Usage(`namegate demo: ${positionals[0]} is not an option\n${USAGE}`);
  if (process.getuid?.() !== 0)
    throw new Fault("demo-root", "the demo makes network namespaces, and that needs root", "run it as root: sudo npm run demo");
  const signals = signalled();
  const { say, paint } = printer(out);
  say(paint(BOLD, "namegate demo: a node with pods, a resolver and an outside world, in network namespaces of this machine"));
  const lab = await createLab();
  try {
    const played = await Promise.race([play(lab, say, paint), signals.promise]);
    if (played === undefined) {
      say("\ninterrupted; cleaning up");
      return INTERRUPTED;
    }
    if (values.keep === true) {
      played.world.put(POLICIES.checkout);
      for (const line of lookAround(played.world, paint)) say(line);
      await signals.promise;
    } else for (const line of next()) say(line);
    return played.failed === 0 ? 0 : 1;
  } finally {
    await lab.close();
    signals.off();
  }
}

interface Signals {
  readonly promise: Promise<void>;
  off(): void;
}

/** Ctrl-C and its like, once; later ones are ignored while we clean up. */
function signalled(): Signals {
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  let told = (): void => undefined;
  const promise = new Promise<void>((resolve) => {
    told = resolve;
  });
  const listener = (): void => told();
  for (const name of names) process.on(name, listener);
  return { promise, off: () => names.forEach((name) => process.off(name, listener)) };
}

async function play(lab: Lab, say: Say, paint: Paint): Promise<{ world: World; failed: number }> {
  const start = performance.now();
  const world = await build(lab);
  for (const line of introduction(world, paint)) say(line);
  const results: Outcome[] = [];
  const show = async ({ title, scenes }: Part): Promise<void> => {
    say(`\n${paint(BOLD, `== ${title}`)}`);
    for (const scene of scenes) {
      const outcome = await scene.play(world);
      results.push(outcome);
      for (const line of report(results.length, scene, outcome, paint)) say(line);
    }
  };
  await show(BEFORE);
  const readyMs = await world.startAgent();
  say(`\nthe agent starts, as on a real node: ready after ${ms(readyMs)}`);
  for (const part of PARTS) await show(part);

  const failed = results.filter(({ ok }) => !ok).length;
  const all = `${results.length} scenes in ${((performance.now() - start) / 1000).toFixed(1)} s`;
  say(
    `\n${failed === 0 ? paint(GREEN, `${all}, all as they should be`) : paint(RED, `${all}, ${failed} NOT as they should be (BAD above)`)}\n`,
  );
  for (const line of summary(results.slice(BEFORE.scenes.length))) say(`  ${line}`);
  return { world, failed };
}

function summary(results: readonly Outcome[]): string[] {
  const rows = (Object.keys(FIGURES) as Figure[]).map((kind) => {
    const values = results.flatMap(({ figure }) => (figure?.[0] === kind ? [figure[1]] : [])).sort((a, b) => a - b);
    const at = (index: number): string => (values[index] === undefined ? "-" : ms(values[index]));
    return [FIGURES[kind], String(values.length), at(values.length >> 1), at(values.length - 1)];
  });
  return table([["", "TIMES", "MEDIAN", "SLOWEST"], ...rows]);
}

function next(): string[] {
  const program = `node ${relative(process.cwd(), MAIN)}`;
  const rows = [
    ["demo --keep", "the same, left running, to look around in"],
    ["check FILE…", "is this policy valid?"],
    ["replay CAPTURE", "judge a capture file of your own, without an agent"],
    ["agent --help", "the agent on this machine, with a folder of policies and a file of pods"],
  ] as const;
  return ["", "next:", ...rows.map(([command, does]) => `  ${program} ${command.padEnd(14)}  ${does}`)];
}

function introduction({ lab, policies }: World, paint: Paint): string[] {
  const pods = lab.pods
    .filter(({ listed }) => listed)
    .map(({ namespace, name, v4, kind, interface: iface }) => {
      const mode = Object.values(POLICIES).find((policy) => policy.name === name)?.mode ?? "no policy";
      return `  ${`${namespace}/${name}`.padEnd(14)}  ${(v4 ?? "").padEnd(12)} ${(kind === "bridge" ? `${iface} on a bridge` : `${iface}, routed`).padEnd(18)} ${mode}`;
    });
  return [
    "",
    ...pods,
    `  outside         api.stripe.com (${OUTSIDE.stripe}, ${OUTSIDE.stripe6}), orders-db.example.com, images.example.org, evil.example.net, …`,
    "",
    `policies: ConfigMaps in ${policies}; that of shop/checkout:`,
    "",
    ...document(POLICIES.checkout)
      .split("\n")
      .map((line) => paint(CYAN, `  ${line}`)),
  ];
}

function report(number: number, { title }: Scene, { ok, said, events }: Outcome, paint: Paint): string[] {
  const mark = ok ? paint(GREEN, "ok  ") : paint(RED, "BAD ");
  return [
    `${String(number).padStart(2)}  ${title}`,
    ...said.map((line, i) => `    ${i === 0 ? mark : "    "}${line}`),
    ...events.map((event) => paint(DIM, `        ${eventText(event)}`)),
  ];
}

/** openssl is there: the demo made its certificate with it. */
const HELLO = "openssl s_client -brief -connect";

function lookAround({ lab, namegate, policies }: World, paint: Paint): string[] {
  const inside = (where: string, command: string): string => `ip netns exec ${lab.ns(where)} ${command}`;
  const rows = [
    ["what is enforced", namegate("status")],
    ["events as they happen", namegate("observe")],
    ["as shop/checkout", inside("checkout", `${HELLO} api.stripe.com:443 </dev/null`)],
    ["", inside("checkout", `${HELLO} api.stripe.com:443 -servername paste.example.net </dev/null`)],
    ["", inside("checkout", "bash")],
    ["what the kernel knows", inside("node", "ipset list ng-allow4")],
    ["the rules", inside("node", "iptables-save -c")],
    ["change a policy", `$EDITOR ${policies}/checkout.yaml`],
  ] as const;
  return [
    "",
    "left running until Ctrl-C. In another terminal, as root:",
    "",
    ...rows.map(([what, command]) => `  ${what.padEnd(22)} ${paint(CYAN, command)}`),
  ];
}

function printer({ stdout }: Output): { say: Say; paint: Paint } {
  return { say: (text) => void stdout.write(`${text}\n`), paint: painter(stdout, process.env) };
}
