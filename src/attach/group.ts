import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { NetlinkSocket } from "../base/addon.ts";
import { sequences, Writer } from "../base/netlink.ts";
import { exchange, REPLY_BYTES } from "../base/netlink-exchange.ts";
import { writeGroup } from "./rtnetlink.ts";
import { InterfaceGroup } from "../model/attachment.ts";

const EPERM = 1;
const ENODEV = 19;

const file = (iface: string, sys: string): string => join(sys, "class", "net", iface, "netdev_group");

export function groupOf(iface: string, sys = "/sys"): number | undefined {
  try {
    return Number(readFileSync(file(iface, sys), "utf8"));
  } catch {
    return undefined; // no such interface
  }
}

/** Writes the group of an interface. Returns why it could not; an interface that is not there is nobody's problem here. */
export type SetGroup = (iface: string, group: number) => string | undefined;

/** Over a NETLINK_ROUTE socket, since /sys is read-only in a container that is not privileged. */
export function groupSetter(socket: NetlinkSocket): SetGroup {
  const request = new Writer(256);
  const reply = Buffer.alloc(REPLY_BYTES);
  return (iface, group) => {
    const seq = sequences(1);
    request.reset();
    writeGroup(request, seq, iface, group);
    let error = 0;
    const silent = exchange(socket, request.bytes, request.at, seq, 1, reply, (message) => {
      error = message.error;
    });
    if (silent !== undefined) return silent;
    return error === 0 || error === ENODEV
      ? undefined
      : `errno ${error} from the kernel${error === EPERM ? " (CAP_NET_ADMIN is missing)" : ""}`;
  };
}

/** The interfaces that are in a group of ours. */
export function grouped(sys = "/sys"): string[] {
  const ours: readonly (number | undefined)[] = Object.values(InterfaceGroup);
  try {
    return readdirSync(join(sys, "class", "net")).filter((iface) => ours.includes(groupOf(iface, sys)));
  } catch {
    return [];
  }
}
