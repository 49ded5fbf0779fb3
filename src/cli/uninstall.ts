import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { addon, NetlinkProtocol } from "../base/addon.ts";
import { Fault, messageOf } from "../base/fault.ts";
import { openIptables } from "../firewall/iptables.ts";
import { grouped, groupSetter } from "../attach/group.ts";
import { unpinHellos } from "../firewall/hellos.ts";
import { RuleKeeper } from "../firewall/keeper.ts";
import { MARK_MASK_DEFAULT, marks } from "../firewall/marks.ts";
import { ALL_MATCHES, QUEUE_BASE_DEFAULT } from "../firewall/rules.ts";
import { removePair } from "../selftest/pair.ts";
import { Kernel } from "../worker/kernel.ts";
import { askOnce } from "./status.ts";
import { options, type Output, SOCKET_DEFAULT } from "./usage.ts";

const USAGE = `usage: namegate uninstall [--socket PATH] [--state DIR] [--force]

Removes every rule, chain and set of namegate from this node, in both iptables variants and both families. Refused while
an agent is running (it would put them back), unless --force.
`;

export async function uninstall(argv: readonly string[], out: Output): Promise<number> {
  const { values } = options(argv, USAGE, { socket: { type: "string" }, state: { type: "string" }, force: { type: "boolean" } });
  const socket = values.socket ?? SOCKET_DEFAULT;
  if (values.force !== true && (await running(socket)))
    throw new Fault("agent-running", `an agent is running (${socket})`, "stop it first, or say --force");
  for (const variant of ["nft", "legacy"] as const) {
    let iptables;
    try {
      iptables = await openIptables(variant);
    } catch (error) {
      if (error instanceof Fault && error.code === "no-iptables-variant") continue;
      throw error;
    }
    await new RuleKeeper(iptables, { marks: marks(MARK_MASK_DEFAULT), queueBase: QUEUE_BASE_DEFAULT, matches: ALL_MATCHES }).remove();
    out.stdout.write(`rules and chains removed (iptables-${variant})\n`);
  }
  try {
    unpinHellos(dirname(socket));
  } catch (error) {
    out.stderr.write(`pins of programs kept: ${messageOf(error)}\n`); // the sets go all the same
  }
  await removePair();
  const native = addon();
  const setGroup = groupSetter(new native.NetlinkSocket({ protocol: NetlinkProtocol.route }));
  for (const iface of grouped()) setGroup(iface, 0);
  const kept = new Kernel(new native.NetlinkSocket(), marks(MARK_MASK_DEFAULT)).destroySets();
  for (const why of kept) out.stderr.write(`set kept: ${why}\n`);
  if (kept.length === 0) out.stdout.write("sets removed\n");
  if (values.state !== undefined) rmSync(values.state, { recursive: true, force: true });
  return kept.length === 0 ? 0 : 1;
}

async function running(socket: string): Promise<boolean> {
  try {
    await askOnce(socket, "status");
    return true;
  } catch (error) {
    return !(error instanceof Fault && error.code === "no-agent"); // one that is in trouble runs too
  }
}
