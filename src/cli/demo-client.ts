import { Resolver } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { connect as connectTls } from "node:tls";
import { fileURLToPath } from "node:url";
import type { Child } from "./lab-process.ts";
import type { Lab } from "./lab-types.ts";

/** The application in a pod of the demo: a program that stays, so that what is measured is the network. */

/** Asks DNS (with `name`), then connects (with `port`) in the same turn of the event loop, then sends and waits for an answer. */
export interface Reach {
  readonly name?: string;
  /** Default A. */
  readonly type?: "A" | "AAAA";
  /** The resolver's address; default the pod's resolv.conf. */
  readonly server?: string;
  /** Without `name`. */
  readonly address?: string;
  readonly port?: number;
  /** Speaks TLS with this server name, and verifies the certificate. */
  readonly serverName?: string;
  /** Bytes, hexadecimal. */
  readonly send?: string;
  /** Keeps the connection open for `talk` and `ended`. */
  readonly hold?: boolean;
  /** For DNS, and again for the connection. Default 3000. */
  readonly timeoutMs?: number;
}

export interface Reached {
  /** undefined: as asked. Else EREFUSED, ECONNREFUSED, ECONNRESET, ETIMEDOUT, … */
  readonly code?: string;
  readonly dnsMs?: number;
  /** From the SYN to the TCP connection. */
  readonly connectMs?: number;
  /** From the SYN to the answer or to the error. */
  readonly ms: number;
}

export interface Client {
  reach(options: Reach): Promise<Reached>;
  /** Sends on the held connection and waits for an answer. */
  talk(send: string): Promise<Reached>;
  /** Waits until the held connection ends; `code` says how. */
  ended(timeoutMs: number): Promise<Reached>;
}

const TIMEOUT_MS = 3000;

/** Starts the program in a pod. `ca`: a PEM file. */
export async function clientIn(lab: Lab, pod: string, ca: string): Promise<Client> {
  const child: Child = lab.spawn(pod, [process.execPath, fileURLToPath(import.meta.url), ca]);
  await child.line((line) => line === "ready");
  let next = 0;
  const ask = (op: string, options: Reach): Promise<Reached> => {
    const mark = `${next++} `;
    const from = child.out.length;
    child.write(`${mark}${JSON.stringify({ op, options })}\n`);
    const timeoutMs = (options.timeoutMs ?? TIMEOUT_MS) * 2 + 2000;
    return child.line((line) => line.startsWith(mark) && (JSON.parse(line.slice(mark.length)) as Reached), { from, timeoutMs });
  };
  return {
    reach: (options) => ask("reach", options),
    talk: (send) => ask("talk", { send }),
    ended: (timeoutMs) => ask("ended", { timeoutMs }),
  };
}

const codeOf = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? String(error);

/** The program: one `ID {op, options}` a line on stdin, one `ID result` a line on stdout. */
async function main(ca: Buffer): Promise<void> {
  let held: Socket | undefined;
  let lost: string | undefined;

  const reach = async (options: Reach): Promise<Reached> => {
    let { address } = options;
    let dnsMs: number | undefined;
    if (options.name !== undefined) {
      const from = performance.now();
      try {
        [address] = await lookUp(options.name, options);
      } catch (error) {
        return { code: codeOf(error), ms: performance.now() - from };
      }
      dnsMs = performance.now() - from;
    }
    if (options.port === undefined || address === undefined) return { ms: dnsMs ?? 0 };
    const from = performance.now();
    const tcp = connect({ host: address, port: options.port, noDelay: true });
    let connectMs: number | undefined;
    tcp.once("connect", () => {
      connectMs = performance.now() - from;
    });
    const socket = options.serverName === undefined ? tcp : connectTls({ socket: tcp, servername: options.serverName, ca });
    if (socket !== tcp) tcp.on("error", (error) => socket.destroy(error));
    const code = await exchange(socket, options.serverName === undefined ? "connect" : "secureConnect", options);
    if (code === undefined && options.hold === true) {
      held = socket;
      lost = undefined;
      socket.on("error", (error) => (lost = codeOf(error))).on("close", () => (lost ??= "closed"));
    } else socket.destroy();
    return {
      ms: performance.now() - from,
      ...(code === undefined ? {} : { code }),
      ...(dnsMs === undefined ? {} : { dnsMs }),
      ...(connectMs === undefined ? {} : { connectMs }),
    };
  };
  const talk = async (options: Reach): Promise<Reached> => {
    const from = performance.now();
    const code = held === undefined ? "no connection" : (lost ?? (await exchange(held, undefined, options)));
    return { ms: performance.now() - from, ...(code === undefined ? {} : { code }) };
  };
  const ended = async ({ timeoutMs = TIMEOUT_MS }: Reach): Promise<Reached> => {
    const from = performance.now();
    while (lost === undefined && performance.now() - from < timeoutMs) await new Promise((resolve) => setTimeout(resolve, 1));
    return { ms: performance.now() - from, code: lost ?? "ETIMEDOUT" };
  };

  // Once for nothing: the first of everything would measure Node.
  await reach({ name: "localhost", server: "127.0.0.1", timeoutMs: 10 });
  await reach({ address: "127.0.0.1", port: 9, serverName: "localhost" });
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const at = line.indexOf(" ");
    const { op, options } = JSON.parse(line.slice(at)) as { op: string; options: Reach };
    const done = op === "reach" ? reach(options) : op === "talk" ? talk(options) : ended(options);
    void done.then((result) => console.log(`${line.slice(0, at)} ${JSON.stringify(result)}`));
  }
  held?.destroy();
}

async function lookUp(name: string, { type, server, timeoutMs = TIMEOUT_MS }: Reach): Promise<string[]> {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 1 });
  if (server !== undefined) resolver.setServers([server]);
  return type === "AAAA" ? resolver.resolve6(name) : resolver.resolve4(name);
}

/** Waits for `ready`, sends, and waits for the first bytes back; undefined, or what went wrong. */
function exchange(socket: Socket, ready: string | undefined, { send, timeoutMs = TIMEOUT_MS }: Reach): Promise<string | undefined> {
  return new Promise((resolve) => {
    const done = (code?: string): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("end", onEnd);
      resolve(code);
    };
    const timer = setTimeout(() => done("ETIMEDOUT"), timeoutMs);
    const onData = (): void => done();
    const onEnd = (): void => done("closed");
    socket
      .on("error", (error) => done(codeOf(error)))
      .once("end", onEnd)
      .on("data", onData);
    const speak = (): void => {
      if (send === undefined) done();
      else socket.write(Buffer.from(send, "hex"));
    };
    if (ready === undefined) speak();
    else socket.once(ready, speak);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(readFileSync(process.argv[2] ?? ""));
