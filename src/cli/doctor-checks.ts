import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { bridgeNetfilter } from "../attach/interface.ts";
import { addon } from "../base/addon.ts";
import { messageOf } from "../base/fault.ts";
import { Ipset } from "../firewall/ipset.ts";
import { openIptables, type Variant } from "../firewall/iptables.ts";
import { collisions, hex } from "../firewall/marks.ts";
import { QueueOffset } from "../firewall/rules.ts";
import { SET_NAMES } from "../worker/kernel.ts";
import { attempt, failed, type Finding, ok, warn } from "./doctor-finding.ts";
import {
  conntrackFinding,
  interfacesFinding,
  meshFinding,
  type TestedStatus,
  testedFindings,
  untrackedFinding,
  variantsFinding,
} from "./doctor-neighbours.ts";
import type { TrialOptions } from "./doctor-trial.ts";
import { askOnce } from "./status.ts";

export interface Examination {
  readonly iptables: Variant | "auto";
  readonly markMask: number;
  readonly queueBase: number;
  readonly socket: string;
}

const SET_TYPES = ["hash:net,iface", "hash:ip,port", "hash:ip", "hash:ip,port,ip", "hash:ip,port,net"] as const;
const CAPABILITIES = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13 } as const; // linux/capability.h
const VARIANTS = ["nft", "legacy"] as const;
const FAMILIES = [4, 6] as const;
const TRIAL_MS = 60_000;
const AGENT_MS = 3000;
/** Interfaces of data planes whose packets may pass by netfilter. */
const BYPASSES: Readonly<Record<string, string>> = { cilium_host: "Cilium", "ovs-system": "Open vSwitch" };

/** Every check, in the order that an operator would repair. Reads only; what must be tried is tried in a namespace. */
export async function examine({ iptables, markMask, queueBase, socket }: Examination): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add = (...more: readonly Finding[]): void => void findings.push(...more);
  const agent = await askAgent(socket);
  const privilege = privileges();
  add(privilege, await attempt("addon", () => (addon(), ok("addon", "loads"))));
  const { chosen, texts, rows } = await iptablesOf(iptables);
  add(...rows);
  if (privilege.status === "ok" && findings.every(({ check, status }) => check !== "addon" || status === "ok")) {
    add(await attempt("ipset", ipsets));
    if (chosen !== undefined) add(...(await tried({ variant: chosen, markMask, queueBase })));
    add(marksFinding(texts, chosen, markMask), await attempt("leftovers", () => leftovers(texts, chosen, agent.running)));
  } else {
    add(warn("ipset, rules, queues", "not looked at", "repair the above first"));
  }
  add(queueHolders(queueBase, agent.running), conntrackFinding(), bridges(), variantsFinding(texts, chosen), untrackedFinding(texts));
  add(meshFinding(texts), bypass(), await attempt("interfaces", () => interfacesFinding()), agent.finding, ...testedFindings(agent.status));
  return findings;
}

function privileges(): Finding {
  const fix = "run it as root, in a container with privileged: true, or with these capabilities";
  const effective = BigInt(`0x${/CapEff:\s*([0-9a-f]+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`);
  const lacking = Object.entries(CAPABILITIES).filter(([, bit]) => ((effective >> BigInt(bit)) & 1n) === 0n);
  if (lacking.length > 0) return failed("privilege", `this process lacks ${lacking.map(([name]) => name).join(" and ")}`, fix);
  return ok("privilege", Object.keys(CAPABILITIES).join(" and "));
}

/** `texts`: what iptables-save prints, of each variant that is installed. */
async function iptablesOf(wanted: Variant | "auto") {
  const rows: Finding[] = [];
  const texts = new Map<Variant, string>();
  let chosen: Variant | undefined;
  const first = await attempt("iptables", async () => {
    const { variant, reason } = await openIptables(wanted);
    chosen = variant;
    return ok("iptables", `the agent would use iptables-${variant} (${reason})`);
  });
  rows.push(first);
  for (const variant of VARIANTS) {
    const check = `iptables-${variant}`;
    try {
      const driver = await openIptables(variant);
      const saved: string[] = [];
      for (const family of FAMILIES) saved.push(await driver.saveAll(family));
      texts.set(variant, saved.join("\n"));
      const rules = saved.map((text) => text.split("\n").filter((line) => line.startsWith("-A ")).length);
      rows.push(ok(check, `${await versionOf(check)}; ${rules[0]} rules for IPv4, ${rules[1]} for IPv6`));
    } catch (error) {
      const judge = variant === chosen ? failed : warn;
      const absent = messageOf(error).includes("is not installed");
      rows.push(absent && variant !== chosen ? ok(check, "not installed") : judge(check, messageOf(error), "see the message"));
    }
  }
  return { chosen, texts, rows };
}

function versionOf(command: string): Promise<string> {
  return new Promise((resolve) =>
    execFile(command, ["--version"], { timeout: 10_000 }, (error, stdout) => resolve(error === null ? stdout.trim() : messageOf(error))),
  );
}

function ipsets(): Finding {
  const ipset = new Ipset(new (addon().NetlinkSocket)());
  const protocol = ipset.protocol();
  if ("code" in protocol) return failed("ipset", protocol.text, "load the module ip_set (CONFIG_IP_SET); kernel 4.20 or newer");
  const lacking = ipset.probe(SET_TYPES);
  if (lacking.length > 0) {
    const modules = [...new Set(lacking.map(({ type }) => `ip_set_${type.replace(":", "_").replaceAll(",", "")}`))];
    return failed(
      "ipset",
      lacking.map(({ type, family, refusal }) => `${type} IPv${family}: ${refusal.text}`).join("\n"),
      `modprobe ${modules.join(" ")}`,
    );
  }
  const revisions = SET_TYPES.map((type) => {
    const revision = ipset.revision(type, 4);
    return `${type} revision ${typeof revision === "number" ? revision : "unknown"}`;
  });
  return ok("ipset", `protocol ${protocol.max}; ${revisions.join(", ")}`);
}

/** What the agent does, done in a network namespace of its own. */
function tried(options: TrialOptions): Promise<Finding[]> {
  const url = new URL("./doctor-trial.js", import.meta.url).href;
  const code = `import { trial } from ${JSON.stringify(url)}; process.stdout.write(JSON.stringify(await trial(${JSON.stringify(options)})));`;
  return new Promise((resolve) => {
    execFile("unshare", ["-n", process.execPath, "--input-type=module", "-e", code], { timeout: TRIAL_MS }, (error, stdout, stderr) => {
      try {
        resolve(JSON.parse(stdout) as Finding[]);
      } catch {
        const why = (stderr.trim().split("\n").at(-1) ?? "") || (error === null ? "no answer" : messageOf(error));
        const denied = /unshare/.test(why) || (error as NodeJS.ErrnoException | null)?.code === "ENOENT";
        if (denied)
          resolve([
            warn(
              "trial",
              `rules, sets and queues could not be tried in a network namespace: ${why}`,
              "install util-linux, and give CAP_SYS_ADMIN",
            ),
          ]);
        else resolve([failed("trial", `rules, sets and queues could not be tried: ${why}`, "see the message")]);
      }
    });
  });
}

function marksFinding(texts: ReadonlyMap<Variant, string>, chosen: Variant | undefined, mask: number): Finding {
  const found = [...texts].flatMap(([variant, text]) => collisions(text, mask).map((collision) => ({ variant, ...collision })));
  const [first] = [...found.filter(({ variant }) => variant === chosen), ...found];
  if (first === undefined) return ok("marks", `no rule of another program uses the bits ${hex(mask)}`);
  const what = `a rule in ${first.table} (iptables-${first.variant}) ${first.why}: ${first.rule}${found.length > 1 ? `\nand ${found.length - 1} more` : ""}`;
  return (first.variant === chosen ? failed : warn)("marks", what, "choose three other bits with --mark-mask, for example 0xe00");
}

function leftovers(texts: ReadonlyMap<Variant, string>, chosen: Variant | undefined, running: boolean): Finding {
  const chains = [...texts].map(([variant, text]) => ({
    variant,
    count: text.split("\n").filter((line) => line.startsWith(":NG-")).length,
  }));
  const list = new Ipset(new (addon().NetlinkSocket)()).list();
  const sets = Array.isArray(list) ? list.filter(({ name }) => SET_NAMES.includes(name)).length : 0;
  const stray = chains.filter(({ variant, count }) => count > 0 && variant !== chosen);
  const parts = [
    ...chains.filter(({ count }) => count > 0).map(({ variant, count }) => `${count} chains in iptables-${variant}`),
    ...(sets > 0 ? [`${sets} sets`] : []),
  ];
  if (parts.length === 0) return ok("leftovers", "no rule and no set of namegate is here");
  if (stray.length > 0)
    return warn(
      "leftovers",
      `${parts.join(", ")}; those in iptables-${stray[0]?.variant} judge every packet a second time`,
      "stop the agent and run `namegate uninstall`",
    );
  if (running) return ok("leftovers", `${parts.join(", ")}, of the running agent`);
  return warn(
    "leftovers",
    `${parts.join(", ")}, and no agent: unknown new connections of guarded pods wait`,
    "start the agent, which takes them over, or run `namegate uninstall`",
  );
}

/** Does another program hold one of our queue numbers? */
function queueHolders(base: number, running: boolean): Finding {
  const last = base + Object.keys(QueueOffset).length - 1;
  let text = "";
  try {
    text = readFileSync("/proc/net/netfilter/nfnetlink_queue", "utf8");
  } catch {
    // the module is not loaded: nobody has a queue
  }
  const held = text
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter(([queue = -1]) => queue >= base && queue <= last && text !== "");
  if (held.length === 0) return ok("queue numbers", `${base} to ${last} are free`);
  const numbers = held.map(([queue]) => queue).join(", ");
  if (running) return ok("queue numbers", `${numbers} are held, the agent is running`);
  return failed(
    "queue numbers",
    `${numbers} are held by another program (netlink port ${held[0]?.[1]})`,
    "stop it, or choose others with --queue-base",
  );
}

function interfaces(): string[] {
  try {
    return readdirSync("/sys/class/net");
  } catch {
    return [];
  }
}

function bridges(): Finding {
  const found = interfaces().filter((name) => existsSync(`/sys/class/net/${name}/bridge`));
  const off = FAMILIES.filter((family) => !bridgeNetfilter(family)).map(
    (family) => `net.bridge.bridge-nf-call-${family === 4 ? "iptables" : "ip6tables"}`,
  );
  if (off.length === 0) return ok("bridges", `bridged packets cross netfilter (${found.join(", ") || "no bridge here"})`);
  if (found.length === 0) return ok("bridges", "there is none");
  return warn(
    "bridges",
    `pods on ${found.join(", ")} cannot be guarded: ${off.join(" and ")} not 1`,
    `modprobe br_netfilter && sysctl -w ${off.map((name) => `${name}=1`).join(" ")}`,
  );
}

function bypass(): Finding {
  const found = interfaces().filter((name) => Object.hasOwn(BYPASSES, name));
  const [first] = found;
  if (first === undefined) return ok("data plane", "no sign of one that passes by netfilter");
  return warn(
    "data plane",
    `${BYPASSES[first]} is here (${first}): packets may pass by netfilter, and would not be guarded`,
    first === "cilium_host"
      ? "set bpf.hostLegacyRouting=true in Cilium; once the agent runs, its self-test says for each pod whether it is guarded"
      : "once the agent runs, its self-test says for each pod whether it is guarded",
  );
}

async function askAgent(
  socket: string,
): Promise<{ readonly running: boolean; readonly finding: Finding; readonly status?: TestedStatus | undefined }> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${AGENT_MS / 1000} s`)), AGENT_MS);
  });
  try {
    const answer = (await Promise.race([askOnce(socket, "status"), late])) as
      | ({ ready?: boolean; mode?: string; effectiveMode?: string } & TestedStatus)
      | undefined;
    const text = `running (${socket}): ${answer?.ready === true ? "ready" : "not ready"}, mode ${answer?.mode}, in effect ${answer?.effectiveMode}`;
    const good = answer?.ready === true && answer.mode === answer.effectiveMode;
    return {
      running: true,
      status: answer,
      finding: good ? ok("agent", text) : failed("agent", text, "see `namegate status` and its log"),
    };
  } catch (error) {
    const absent = !existsSync(socket) || /no agent is running/.test(messageOf(error));
    const finding = absent
      ? ok("agent", `none is running (${socket})`)
      : warn("agent", messageOf(error), "see its log; run the doctor as root");
    return { running: !absent, finding };
  } finally {
    clearTimeout(timer);
  }
}
