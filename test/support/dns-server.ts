import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import packet from "dns-packet";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";

/** How one name (lower case; `*` for all others) is answered. Without a matching entry: NXDOMAIN. */
export interface NameAnswer {
  /** Addresses, by type. An asked type that is not here is answered with no records. */
  readonly A?: readonly string[];
  readonly AAAA?: readonly string[];
  /** Targets, each the owner of the next; the addresses belong to the last. */
  readonly cname?: readonly string[];
  /** RDATA of HTTPS records, hexadecimal. */
  readonly https?: readonly string[];
  /** Seconds; default 60. */
  readonly ttl?: number;
  readonly rcode?: "NOERROR" | "NXDOMAIN" | "SERVFAIL" | "REFUSED";
  /** Wait before the reply. */
  readonly delayMs?: number;
  /** UDP replies have TC set and no records. */
  readonly truncate?: boolean;
  /** Bytes of TXT added to the reply, so that it is fragmented or goes over TCP. */
  readonly padding?: number;
  /** No reply at all. */
  readonly silent?: boolean;
  /** The whole reply in hexadecimal; its first two bytes are replaced by the query's id. */
  readonly raw?: string;
  /** Records before all others, whoever owns them (foreign owners, for the owner check). */
  readonly extra?: readonly { readonly name: string; readonly type: "A" | "AAAA"; readonly data: string }[];
  /** TCP: the reply is written in pieces of this many bytes, 5 ms apart. */
  readonly tcpPieces?: number;
}

export interface DnsServerOptions {
  readonly names: Readonly<Record<string, NameAnswer>>;
  /** Default 53. */
  readonly port?: number;
  /** Default all of the namespace's, each with a socket of its own, so that a reply comes from the address asked. */
  readonly addresses?: readonly string[];
}

export interface DnsQuery {
  readonly name: string;
  readonly type: string;
  readonly transport: "udp" | "tcp";
  readonly from: string;
}

export interface DnsServer {
  readonly child: Child;
  /** Every query so far, in order. */
  queries(): DnsQuery[];
  /** Replaces the names. */
  setNames(names: DnsServerOptions["names"]): Promise<void>;
}

/** Starts a scripted DNS server, UDP and TCP, both families, in a namespace of the lab; it answers when this returns. */
export async function dnsServer(lab: Lab, where: string, options: DnsServerOptions): Promise<DnsServer> {
  const child = lab.spawn(where, [process.execPath, fileURLToPath(import.meta.url)]);
  child.write(`${JSON.stringify(options)}\n`);
  await child.line((line) => line === "ready");
  return {
    child,
    queries: () => child.out.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as DnsQuery),
    async setNames(names) {
      const from = child.out.length;
      child.write(`${JSON.stringify({ names })}\n`);
      await child.line((line) => line === "changed", { from });
    },
  };
}

type Question = { readonly name: string; readonly type: string };
type Answer = NonNullable<packet.Packet["answers"]>[number];

/** undefined: no reply. */
export function reply(query: packet.DecodedPacket, names: DnsServerOptions["names"], transport: "udp" | "tcp"): Buffer | undefined {
  const question = query.questions?.[0] as Question | undefined;
  if (question === undefined) return undefined;
  const how = names[question.name.toLowerCase()] ?? names["*"] ?? { rcode: "NXDOMAIN" };
  if (how.silent === true) return undefined;
  if (how.raw !== undefined) {
    const bytes = Buffer.from(how.raw, "hex");
    if (bytes.length >= 2) bytes.writeUInt16BE(query.id ?? 0, 0);
    return bytes;
  }
  const cut = transport === "udp" && how.truncate === true;
  const rcode = { NOERROR: 0, SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 }[how.rcode ?? "NOERROR"];
  return packet.encode({
    type: "response",
    id: query.id ?? 0,
    flags: packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE | (cut ? packet.TRUNCATED_RESPONSE : 0) | rcode,
    questions: query.questions ?? [],
    answers: cut || rcode !== 0 ? [] : answers(question, how),
  });
}

function answers(question: Question, how: NameAnswer): Answer[] {
  const ttl = how.ttl ?? 60;
  const made: unknown[] = (how.extra ?? []).map((record) => ({ ...record, ttl }));
  let owner = question.name;
  for (const target of how.cname ?? []) {
    made.push({ name: owner, type: "CNAME", ttl, data: target });
    owner = target;
  }
  if (question.type === "A") for (const data of how.A ?? []) made.push({ name: owner, type: "A", ttl, data });
  if (question.type === "AAAA") for (const data of how.AAAA ?? []) made.push({ name: owner, type: "AAAA", ttl, data });
  if (question.type === "HTTPS" || question.type === "UNKNOWN_65") {
    for (const data of how.https ?? []) made.push({ name: owner, type: "UNKNOWN_65", ttl, data: Buffer.from(data, "hex") });
  }
  for (let left = how.padding ?? 0; left > 0; left -= 200)
    made.push({ name: owner, type: "TXT", ttl, data: "x".repeat(Math.min(left, 200)) });
  return made as Answer[];
}

/** The program itself: options as the first line of stdin, new names as later ones; queries as lines of JSON on stdout. */
async function main(): Promise<void> {
  const input = createInterface({ input: process.stdin });
  let names: DnsServerOptions["names"] = {};
  const options = await new Promise<DnsServerOptions>((resolve) => {
    let started = false;
    input.on("line", (line) => {
      const given = JSON.parse(line) as DnsServerOptions;
      names = given.names;
      if (started) console.log("changed");
      else resolve(given);
      started = true;
    });
  });
  const answer = (
    bytes: Buffer,
    transport: "udp" | "tcp",
    from: string,
    send: (reply: Buffer, how: NameAnswer | undefined) => void,
  ): void => {
    let query: packet.DecodedPacket;
    try {
      query = packet.decode(bytes);
    } catch {
      return;
    }
    const question = query.questions?.[0];
    const name = question?.name.toLowerCase() ?? "";
    const type = String(question?.type ?? "").replace("UNKNOWN_65", "HTTPS");
    console.log(JSON.stringify({ name, type, transport, from } satisfies DnsQuery));
    const how = names[name] ?? names["*"];
    const made = reply(query, names, transport);
    if (made !== undefined) setTimeout(() => send(made, how), how?.delayMs ?? 0);
  };

  const port = options.port ?? 53;
  const addresses = options.addresses ?? ownAddresses();
  const tcp = createServer((socket) => {
    let rest: Buffer = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("data", (data) => {
      rest = Buffer.concat([rest, data]);
      while (rest.length >= 2 && rest.length >= 2 + rest.readUInt16BE(0)) {
        const end = 2 + rest.readUInt16BE(0);
        answer(rest.subarray(2, end), "tcp", socket.remoteAddress ?? "", (made, how) => {
          const framed = Buffer.concat([Buffer.from([made.length >> 8, made.length & 255]), made]);
          const piece = how?.tcpPieces ?? framed.length;
          socket.setNoDelay(true);
          for (let at = 0, turn = 0; at < framed.length; at += piece, turn++) {
            setTimeout(() => socket.write(framed.subarray(at, at + piece)), turn * 5);
          }
        });
        rest = rest.subarray(end);
      }
    });
  });
  tcp.listen(port, "::", () => {
    let left = addresses.length;
    for (const address of addresses) {
      const udp = createSocket({ type: address.includes(":") ? "udp6" : "udp4" });
      udp.on("message", (bytes, peer) => answer(bytes, "udp", peer.address, (made) => udp.send(made, peer.port, peer.address)));
      udp.bind(port, address, () => {
        if (--left === 0) console.log("ready");
      });
    }
  });
}

/** Every address of this namespace but link-local ones. */
export function ownAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((a) => a.address).filter((a) => !a.startsWith("fe80:")));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
