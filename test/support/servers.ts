import { createSocket } from "node:dgram";
import { createServer as createHttp } from "node:http";
import { createSecureServer } from "node:http2";
import { createServer as createTcp, type Socket } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { ownAddresses } from "./dns-server.ts";

/**
 * One listener. `echo` answers what it gets, `sink` reads and says nothing, `banner` speaks first; `http` and `https`
 * answer every request with a line of JSON {host, path, version, address}, https with HTTP/1.1 and HTTP/2 and a
 * self-signed certificate; `udp-echo` answers datagrams from the address they were sent to.
 */
export interface Listen {
  readonly kind: "echo" | "sink" | "banner" | "http" | "https" | "udp-echo";
  readonly port: number;
  /** banner: what it says. */
  readonly text?: string;
}

/** Something a server saw: a connection, or (udp-echo) a datagram. */
export interface Seen {
  readonly kind: Listen["kind"];
  readonly port: number;
  /** The server's address. */
  readonly local: string;
  readonly from: string;
}

export interface Servers {
  readonly child: Child;
  /** Connections and datagrams so far. */
  seen(): Seen[];
}

/** Starts listeners on every address of a namespace; they listen when this returns. */
export async function serve(lab: Lab, where: string, listen: readonly Listen[]): Promise<Servers> {
  const tls = listen.some((one) => one.kind === "https") ? await certificate(lab) : undefined;
  const child = lab.spawn(where, [process.execPath, fileURLToPath(import.meta.url), JSON.stringify({ listen, tls })]);
  await child.line((line) => line === "ready");
  return {
    child,
    seen: () => child.out.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Seen),
  };
}

/** A self-signed certificate for `*.example.com` and localhost, made once a lab: PEM files. */
export async function certificate(lab: Lab): Promise<{ key: string; cert: string }> {
  const made = { key: join(lab.dir, "tls.key"), cert: join(lab.dir, "tls.crt") };
  const subject = ["-subj", "/CN=*.example.com", "-addext", "subjectAltName=DNS:*.example.com,DNS:example.com,DNS:localhost"];
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", made.key];
  const script = `[ -e "$1" ] || { shift; exec "$@"; }`;
  await lab.run("node", [
    "sh",
    "-c",
    script,
    "sh",
    made.cert,
    "openssl",
    "req",
    "-x509",
    "-days",
    "30",
    ...key,
    "-out",
    made.cert,
    ...subject,
  ]);
  return made;
}

/** The program itself. */
async function main(text: string): Promise<void> {
  const { readFileSync } = await import("node:fs");
  const { listen, tls } = JSON.parse(text) as { listen: Listen[]; tls?: { key: string; cert: string } };
  let waiting = 1;
  const ready = (): void => {
    if (--waiting === 0) console.log("ready");
  };
  const plain = (address: string | undefined): string => (address ?? "").replace(/^::ffff:/, "");
  for (const one of listen) {
    const seen = (local: string | undefined, from: string | undefined): void =>
      console.log(JSON.stringify({ kind: one.kind, port: one.port, local: plain(local), from: plain(from) } satisfies Seen));
    if (one.kind === "udp-echo") {
      for (const address of ownAddresses()) {
        const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
        socket.on("message", (bytes, peer) => {
          seen(address, peer.address);
          socket.send(bytes, peer.port, peer.address);
        });
        waiting++;
        socket.bind(one.port, address, ready);
      }
      continue;
    }
    const server = listener(one, tls === undefined ? undefined : { key: readFileSync(tls.key), cert: readFileSync(tls.cert) });
    server.on("connection", (socket: Socket) => {
      socket.on("error", () => {});
      seen(socket.localAddress, socket.remoteAddress);
    });
    waiting++;
    server.listen(one.port, "::", ready);
  }
  ready();
}

function listener(one: Listen, tls: { key: Buffer; cert: Buffer } | undefined): ReturnType<typeof createTcp> {
  type Request = {
    headers: Record<string, unknown>;
    url?: string | undefined;
    httpVersion: string;
    socket: { localAddress?: string | undefined };
  };
  const answer = (request: Request, response: { setHeader(name: string, value: string): unknown; end(text: string): unknown }): void => {
    const host = request.headers.host ?? request.headers[":authority"] ?? null;
    response.setHeader("content-type", "application/json");
    response.end(
      `${JSON.stringify({ host, path: request.url ?? "", version: request.httpVersion, address: request.socket.localAddress })}\n`,
    );
  };
  switch (one.kind) {
    case "http":
      return createHttp((request, response) => answer(request, response));
    case "https":
      if (tls === undefined) throw new Error("https without a certificate");
      return createSecureServer({ ...tls, allowHTTP1: true }, (request, response) => answer(request, response));
    case "echo":
      return createTcp((socket) => socket.pipe(socket));
    case "sink":
      return createTcp((socket) => socket.resume());
    case "banner":
      return createTcp((socket) => {
        socket.resume();
        socket.write(one.text ?? "hello\r\n");
      });
    case "udp-echo":
      throw new Error("not a TCP listener");
    default:
      return one.kind satisfies never;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(process.argv[2] ?? "{}");
