import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { connect as connectTcp, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { connect as connectTls } from "node:tls";
import { fileURLToPath } from "node:url";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";

/** Default 3000 ms each, from start to end of the operation. */
interface Timed {
  readonly timeoutMs?: number;
}

export interface ConnectOptions extends Timed {
  readonly host: string;
  readonly port: number;
  /** Sent as soon as connected; then what comes back is read until `expect` bytes are there (default 1 when `send` is given, else 0). */
  readonly send?: string | Uint8Array;
  readonly expect?: number;
  /** Speaks TLS with this server name (no verification of the certificate); `send` goes through it. */
  readonly serverName?: string;
  readonly alpn?: readonly string[];
  /** Keeps the connection open (until `closeAll`); `hold` is the handle for `talk`. */
  readonly hold?: boolean;
  readonly localPort?: number;
}

export interface Connected {
  readonly ok: boolean;
  /** Milliseconds to the TCP connection; null when it never was. */
  readonly connectMs: number | null;
  /** Milliseconds to the end: all of `expect` is there, or the error. */
  readonly ms: number;
  /** ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ETIMEDOUT (ours), EEND (closed before `expect` bytes), … */
  readonly code: string | null;
  /** What came back, binary as latin1. */
  readonly data: string;
  readonly hold: number | null;
}

export interface ResolveOptions extends Timed {
  readonly name: string;
  /** Default A. */
  readonly type?: "A" | "AAAA";
  /** `address`, `address:port` or `[v6]:port`; default the resolv.conf of the pod. */
  readonly server?: string;
}

export interface Resolved {
  readonly ok: boolean;
  readonly addresses: readonly string[];
  readonly code: string | null;
  readonly ms: number;
}

export interface DatagramOptions extends Timed {
  readonly host: string;
  readonly port: number;
  readonly send: string | Uint8Array;
}

/** A client that lives in a pod, so that an operation costs no process start. Operations run side by side. */
export interface Client {
  readonly child: Child;
  /** TCP (and TLS). */
  connect(options: ConnectOptions): Promise<Connected>;
  /** Sends on a held connection and reads `expect` bytes (default 1). */
  talk(options: { readonly hold: number; readonly send: string | Uint8Array; readonly expect?: number } & Timed): Promise<Connected>;
  resolve(options: ResolveOptions): Promise<Resolved>;
  /** Resolves and connects to the first address in the same turn of the event loop: what races the agent. */
  resolveThenConnect(options: ResolveOptions & Omit<ConnectOptions, "host">): Promise<{ resolved: Resolved; connected: Connected | null }>;
  /** One UDP datagram and the first one back. */
  datagram(options: DatagramOptions): Promise<Connected>;
  closeAll(): Promise<void>;
}

/** Starts a client in a pod (any namespace of the lab). */
export async function clientIn(lab: Lab, where: string): Promise<Client> {
  const child = lab.spawn(where, [process.execPath, fileURLToPath(import.meta.url)]);
  await child.line((line) => line === "ready");
  let next = 0;
  const ask = async <T>(op: string, options: Timed): Promise<T> => {
    const id = next++;
    const from = child.out.length;
    const shown = JSON.stringify({ id, op, options }, (_key, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : value,
    );
    child.write(`${shown}\n`);
    const mark = `{"id":${id},`;
    const timeoutMs = (options.timeoutMs ?? 3000) * 2 + 2000;
    return await child.line((line) => line.startsWith(mark) && ((JSON.parse(line) as { result: T }).result ?? undefined), {
      from,
      timeoutMs,
    });
  };
  return {
    child,
    connect: (options) => ask("connect", options),
    talk: (options) => ask("talk", options),
    resolve: (options) => ask("resolve", options),
    resolveThenConnect: (options) => ask("resolveThenConnect", options),
    datagram: (options) => ask("datagram", options),
    closeAll: async () => void (await ask("closeAll", {})),
  };
}

/** Sends the text, latin1, as it is. */
type Wire<T> = Omit<T, "send"> & { readonly send?: string };

const held = new Map<number, Socket>();
let holds = 0;

function doConnect(options: Wire<ConnectOptions>): Promise<Connected> {
  const start = performance.now();
  const socket = connectTcp({
    host: options.host,
    port: options.port,
    ...(options.localPort === undefined ? {} : { localPort: options.localPort }),
  });
  let connectMs: number | null = null;
  socket.setNoDelay(true);
  socket.once("connect", () => {
    connectMs = performance.now() - start;
  });
  let speaking: Socket = socket;
  if (options.serverName !== undefined) {
    speaking = connectTls({
      socket,
      servername: options.serverName,
      rejectUnauthorized: false,
      ...(options.alpn === undefined ? {} : { ALPNProtocols: [...options.alpn] }),
    });
    socket.on("error", (error) => speaking.destroy(error));
  }
  const ready = options.serverName === undefined ? "connect" : "secureConnect";
  return exchange(speaking, ready, options, start, () => connectMs);
}

/** Waits for `ready` (undefined: it is), sends, and reads `expect` bytes. */
function exchange(
  socket: Socket,
  ready: string | undefined,
  options: { send?: string; expect?: number; hold?: boolean | number; timeoutMs?: number },
  start: number,
  connectMs: () => number | null,
): Promise<Connected> {
  const expect = options.expect ?? (options.send === undefined ? 0 : 1);
  return new Promise((resolve) => {
    let data = "";
    const done = (code: string | null): void => {
      clearTimeout(timer);
      socket.off("data", onData).off("end", onEnd).off("close", onEnd).off("error", onError);
      socket.on("error", () => {});
      let hold: number | null = null;
      if (code === null && options.hold === true) {
        hold = holds++;
        held.set(hold, socket);
      } else if (code === null && typeof options.hold === "number") {
        hold = options.hold;
      } else {
        socket.destroy();
      }
      resolve({ ok: code === null, connectMs: connectMs(), ms: performance.now() - start, code, data, hold });
    };
    const timer = setTimeout(() => done("ETIMEDOUT"), options.timeoutMs ?? 3000);
    const onData = (bytes: Buffer): void => {
      data += bytes.toString("latin1");
      if (data.length >= expect) done(null);
    };
    const onEnd = (): void => done("EEND");
    const onError = (error: NodeJS.ErrnoException): void => done(error.code ?? error.message);
    const speak = (): void => {
      if (options.send !== undefined) socket.write(Buffer.from(options.send, "latin1"));
      if (expect === 0) done(null);
    };
    socket.on("error", onError).on("end", onEnd).on("close", onEnd).on("data", onData);
    if (ready === undefined) speak();
    else socket.once(ready, speak);
  });
}

async function doResolve(options: ResolveOptions): Promise<Resolved> {
  const start = performance.now();
  const resolver = new Resolver({ timeout: options.timeoutMs ?? 3000, tries: 1 });
  if (options.server !== undefined) resolver.setServers([options.server]);
  try {
    const addresses = options.type === "AAAA" ? await resolver.resolve6(options.name) : await resolver.resolve4(options.name);
    return { ok: true, addresses, code: null, ms: performance.now() - start };
  } catch (error) {
    return { ok: false, addresses: [], code: (error as NodeJS.ErrnoException).code ?? String(error), ms: performance.now() - start };
  }
}

function doDatagram(options: Wire<DatagramOptions>): Promise<Connected> {
  const start = performance.now();
  const socket = createSocket(options.host.includes(":") ? "udp6" : "udp4");
  return new Promise((resolve) => {
    const done = (code: string | null, data = ""): void => {
      clearTimeout(timer);
      socket.removeAllListeners("error").on("error", () => {});
      try {
        socket.close();
      } catch {
        // closed by an earlier answer
      }
      resolve({ ok: code === null, connectMs: null, ms: performance.now() - start, code, data, hold: null });
    };
    const timer = setTimeout(() => done("ETIMEDOUT"), options.timeoutMs ?? 3000);
    socket.on("error", (error: NodeJS.ErrnoException) => done(error.code ?? error.message));
    socket.on("message", (bytes) => done(null, bytes.toString("latin1")));
    // Connected, so that an ICMP error comes back as ECONNREFUSED or EHOSTUNREACH.
    socket.connect(options.port, options.host, () => socket.send(Buffer.from(options.send ?? "", "latin1")));
  });
}

/** The program itself: one operation a line on stdin, one result a line on stdout. */
async function perform(op: string, options: never): Promise<unknown> {
  switch (op) {
    case "connect":
      return doConnect(options);
    case "resolve":
      return doResolve(options);
    case "datagram":
      return doDatagram(options);
    case "resolveThenConnect": {
      const resolved = await doResolve(options);
      const host = resolved.addresses[0];
      return { resolved, connected: host === undefined ? null : await doConnect({ ...(options as Wire<ConnectOptions>), host }) };
    }
    case "talk": {
      const { hold, ...rest } = options as { hold: number; send: string; expect?: number; timeoutMs?: number };
      const socket = held.get(hold);
      if (socket === undefined) return { ok: false, connectMs: null, ms: 0, code: "ENOHOLD", data: "", hold: null } satisfies Connected;
      if (socket.destroyed) return { ok: false, connectMs: null, ms: 0, code: "EEND", data: "", hold: null } satisfies Connected;
      return exchange(socket, undefined, { ...rest, hold }, performance.now(), () => null);
    }
    case "closeAll":
      for (const socket of held.values()) socket.destroy();
      held.clear();
      return true;
    default:
      throw new Error(`no operation ${op}`);
  }
}

function main(): void {
  createInterface({ input: process.stdin }).on("line", (line) => {
    const { id, op, options } = JSON.parse(line) as { id: number; op: string; options: never };
    void perform(op, options).then((result) => console.log(JSON.stringify({ id, result })));
  });
  console.log("ready");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
