import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { FirstBytes, Inspector, Reading, Run } from "./inspector.ts";
import { more, printable, sizeOf } from "./parts.ts";
import { field } from "./text.ts";

/** SOCKS 4 and 4a (the NEC documents), SOCKS 5 (RFC 1928): what the proxy is asked for. */
const TEXT_MAX = 255;
const METHODS_MAX = 10; // honest clients offer one to three
const FIXED_BYTES = 8; // version 4: command, port, address
const bad = { bad: "not SOCKS" };

export const socksInspector: Inspector = {
  application: "socks",
  transports: [Protocol.TCP],
  opens: "client",
  read(first: FirstBytes): Reading {
    const { client } = first;
    if (sizeOf(client) === 0) return more(client, 1);
    const version = client.bytes[client.start];
    return version === 4 ? readVersion4(first.client) : version === 5 ? readVersion5(first) : bad;
  },
};

/** Command, port, address, user; 4a: where the address is 0.0.0.x, a name. Only CONNECT: nobody uses BIND, and these are few bits. */
function readVersion4(run: Run): Reading {
  const { bytes, start } = run;
  const c = new Cursor(bytes, start + 1, run.end);
  const have = sizeOf(run);
  const command = c.u8();
  const port = c.u16();
  const address = c.u32();
  if (have >= 2 && command !== 1) return bad;
  if (have >= 4 && port === 0) return bad;
  if (have < FIXED_BYTES) return more(run, FIXED_BYTES + 1);
  const named = address > 0 && address < 256;
  if (!named && (address < 0x01000000 || address >= 0xe0000000)) return bad;
  const user = textAt(run, start + FIXED_BYTES);
  if (user === "bad") return bad;
  if (user === undefined) return more(run, have + 1);
  const host = named ? textAt(run, user.end + 1) : undefined;
  if (host === "bad" || (host !== undefined && host.text === "")) return bad;
  if (named && host === undefined) return more(run, have + 1);
  const name = host?.text;
  const target = `${name ?? [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".")}:${port}`;
  const fields = { target: target.slice(0, TEXT_MAX), ...(user.text === "" ? {} : { user: user.text }) };
  return { application: "socks", serverName: name, version: name === undefined ? "4" : "4a", fields };
}

/** Printable text up to a NUL; undefined while it is not there. */
function textAt(run: Run, at: number): { readonly text: string; readonly end: number } | "bad" | undefined {
  const found = run.bytes.subarray(at, Math.min(run.end, at + TEXT_MAX + 1)).indexOf(0);
  const end = found < 0 ? Math.min(run.end, at + TEXT_MAX + 1) : at + found;
  if (end > at && !printable(run.bytes, at, end)) return "bad";
  if (found < 0) return run.end - at > TEXT_MAX ? "bad" : undefined;
  return { text: field(run.bytes, at, end), end };
}

/** The methods; when the server has chosen "none", the request. Both sides together are beyond doubt, the client's first bytes are not. */
function readVersion5({ client, server }: FirstBytes): Reading {
  const { bytes, start } = client;
  const have = sizeOf(client);
  const count = have < 2 ? 1 : (bytes[start + 1] as number);
  if (count < 1 || count > METHODS_MAX) return bad;
  for (let i = 2; i < Math.min(have, 2 + count); i++) if (!isMethod(bytes[start + i] as number)) return bad;
  if (have < 2 + count) return more(client, 2 + count);
  if (sizeOf(server) < 2) {
    if (server.closed) return have === 2 + count ? bad : readRequest(client, start + 2 + count, bad);
    return sizeOf(server) === 1 && server.bytes[server.start] !== 5 ? bad : { need: 2, of: "server", release: true };
  }
  const chosen = server.bytes[server.start + 1] as number;
  const offered = bytes.subarray(start + 2, start + 2 + count);
  if (server.bytes[server.start] !== 5 || (chosen !== 0xff && !offered.includes(chosen))) return bad;
  const evidence: Reading = { application: "socks", serverName: undefined, version: "5" };
  if (chosen !== 0) return evidence;
  return readRequest(client, start + 2 + count, evidence);
}

/** RFC 1928 §3: assigned methods, and private ones. */
function isMethod(method: number): boolean {
  return method <= 9 || (method >= 0x80 && method < 0xff);
}

/** Command, reserved, the kind of address, address, port. `otherwise` where no more comes. */
function readRequest(run: Run, at: number, otherwise: Reading): Reading {
  const c = new Cursor(run.bytes, at, run.end);
  const head = [c.u8(), c.u8(), c.u8(), c.u8()] as const;
  const left = run.end - at;
  if ((left > 0 && head[0] !== 5) || (left > 1 && (head[1] < 1 || head[1] > 3)) || (left > 2 && head[2] !== 0)) return broken();
  const kind = head[3];
  if (left > 3 && kind !== 1 && kind !== 3 && kind !== 4) return broken();
  const bytes = kind === 1 ? 4 : kind === 4 ? 16 : c.u8();
  const address = c.view(bytes);
  const port = c.u16();
  if (c.short) {
    if (run.closed) return otherwise;
    const need = { need: sizeOf(run) + 1, of: "client", application: "socks" } as const;
    return left === 0 ? { ...need, release: true } : need;
  }
  const name = kind === 3 ? field(address, 0, address.length) : undefined;
  const target = `${name ?? (kind === 1 ? address.join(".") : `[${Buffer.from(address).toString("hex")}]`)}:${port}`;
  return { application: "socks", serverName: name, version: "5", fields: { target: target.slice(0, TEXT_MAX) } };
}

const broken = (): Reading => ({ bad: "no SOCKS request", application: "socks" });
