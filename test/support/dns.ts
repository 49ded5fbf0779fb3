import { lookup, Resolver } from "node:dns";
import { connect } from "node:net";
import { fileURLToPath } from "node:url";
import type { Lab } from "../../src/cli/lab-types.ts";
import { encode, type Labels, labels } from "../dns/encode.ts";

/** What tests of DNS share: queries octet by octet, and a client that resolves and connects as fast as it can. */

/** A query in wire form. `name` as text or as labels (latin1). */
export function query(
  name: string | Labels,
  { type = 1, id = 0x1234, edns = false }: { type?: number; id?: number; edns?: boolean } = {},
): Uint8Array {
  const additionals = edns ? [{ name: [], type: 41, class: 4096, ttl: 0, data: new Uint8Array(0) }] : [];
  return encode({ id, flags: 0x0100, questions: [{ name: typeof name === "string" ? labels(name) : name, type }], additionals });
}

/** With the length that DNS over TCP puts before a message (RFC 1035 §4.2.2). */
export function framed(message: Uint8Array): Uint8Array {
  return Uint8Array.from([message.length >> 8, message.length & 255, ...message]);
}

export const RCODE = { ok: 0, nxdomain: 3, refused: 5 } as const;

/** The response code of a reply as the clients give it (latin1); -1: no reply at all. */
export function rcode(reply: string): number {
  return reply.length < 12 ? -1 : reply.charCodeAt(3) & 15;
}

/** `prefix`0…`count`-1`suffix`, each asked for and connected to in the same turn of the event loop. */
export interface BurstOptions {
  readonly prefix: string;
  readonly suffix: string;
  readonly count: number;
  /** `glibc` is getaddrinfo: A and AAAA in parallel on one socket. `c-ares` asks for one type. */
  readonly how: "glibc" | "c-ares";
  /** c-ares only: default resolv.conf. */
  readonly server?: string;
  readonly type?: "A" | "AAAA";
  readonly port: number;
  readonly inFlight: number;
  /** glibc only: DNS over TCP from the start. */
  readonly tcp?: boolean;
}

export interface Burst {
  readonly connects: number;
  /** "name address: code" */
  readonly failures: readonly string[];
  /** Milliseconds of the slowest lookup and the slowest connect. */
  readonly lookupMs: number;
  readonly connectMs: number;
}

export async function burst(lab: Lab, where: string, options: BurstOptions): Promise<Burst> {
  const env = { UV_THREADPOOL_SIZE: String(options.inFlight), ...(options.tcp === true ? { RES_OPTIONS: "use-vc" } : {}) };
  const text = await lab.run(where, [process.execPath, fileURLToPath(import.meta.url), JSON.stringify(options)], {
    timeoutMs: 60_000,
    env,
  });
  return JSON.parse(text) as Burst;
}

/** Segments that a namespace sent twice, SYNs among them, since it exists. */
export async function retransmitted(lab: Lab, where: string): Promise<number> {
  const snmp = await lab.run(where, ["cat", "/proc/net/snmp"]);
  const [names, values] = snmp
    .split("\n")
    .filter((line) => line.startsWith("Tcp:"))
    .map((line) => line.split(" "));
  return Number(values?.[names?.indexOf("RetransSegs") ?? -1]);
}

function connected(host: string, port: number): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const done = (code: string | undefined): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(code);
    };
    const timer = setTimeout(() => done("ETIMEDOUT"), 5000);
    socket.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? String(error)));
    socket.on("data", () => done(undefined)).write("x");
  });
}

/** The program itself. */
async function main({ prefix, suffix, count, how, server, type = "A", port, inFlight }: BurstOptions): Promise<void> {
  const failures: string[] = [];
  let [next, connects, lookupMs, connectMs] = [0, 0, 0, 0];
  const one = (name: string): Promise<void> =>
    new Promise((resolve) => {
      const from = performance.now();
      const resolved = (error: Error | null, addresses: readonly string[]): void => {
        const at = performance.now();
        lookupMs = Math.max(lookupMs, at - from);
        if (error !== null || addresses.length === 0) failures.push(`${name}: ${String(error)}`);
        const all = addresses.map(async (address) => {
          const code = await connected(address, port);
          connects++;
          connectMs = Math.max(connectMs, performance.now() - at);
          if (code !== undefined) failures.push(`${name} ${address}: ${code}`);
        });
        void Promise.all(all).then(() => resolve());
      };
      if (how === "glibc")
        lookup(name, { all: true }, (error, list) =>
          resolved(
            error,
            (list ?? []).map(({ address }) => address),
          ),
        );
      else {
        const resolver = new Resolver({ timeout: 4000, tries: 1 });
        if (server !== undefined) resolver.setServers([server]);
        if (type === "A") resolver.resolve4(name, (error, list) => resolved(error, list ?? []));
        else resolver.resolve6(name, (error, list) => resolved(error, list ?? []));
      }
    });
  const work = async (): Promise<void> => {
    while (next < count) await one(`${prefix}${next++}${suffix}`);
  };
  await Promise.all(Array.from({ length: inFlight }, work));
  console.log(JSON.stringify({ connects, failures, lookupMs, connectMs } satisfies Burst));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(JSON.parse(process.argv[2] ?? "{}") as BurstOptions);
