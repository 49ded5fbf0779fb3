import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";

/** Telnet (RFC 854): a client that answers or begins with option negotiation, two commands of it. */
const IAC = 255;
const WILL = 251;
const DONT = 254;
const OPTION_MAX = 49; // assigned ones; 255 is the extended list
const COMMANDS = 2;
const COMMAND_BYTES = 3;

export const telnetInspector: Inspector = {
  application: "telnet",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    for (let i = 0; i < COMMANDS * COMMAND_BYTES; i++) {
      if (i >= sizeOf(client)) return more(client, sizeOf(client) + 1);
      if (!fits(client, i)) return { bad: "not Telnet" };
    }
    return { application: "telnet", serverName: undefined };
  },
};

function fits({ bytes, start }: Run, i: number): boolean {
  const octet = bytes[start + i] as number;
  if (i % COMMAND_BYTES === 0) return octet === IAC;
  return i % COMMAND_BYTES === 1 ? octet >= WILL && octet <= DONT : octet <= OPTION_MAX;
}
