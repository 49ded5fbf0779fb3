import { createSocket, type Socket } from "node:dgram";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { createServer as createTls } from "node:tls";
import { fileURLToPath } from "node:url";
import packet from "dns-packet";
import type { Child } from "./lab-process.ts";
import type { Lab } from "./lab-types.ts";

/** The demo's resolver and its outside world: programs of their own, in namespaces of the lab. */

/** Address records of a name (lower case), both families mixed. Every other name is NXDOMAIN. */
export type Names = Readonly<Record<string, readonly string[]>>;

export interface Certificate {
  /** PEM files. */
  readonly key: string;
  readonly cert: string;
}

type Role = { readonly role: "resolver"; readonly port: number; readonly names: Names } | ({ readonly role: "internet" } & Certificate);

/** HTTPS, a PostgreSQL-like server, and a port where anything is echoed. */
export const PORT = { https: 443, postgresql: 5432, other: 8443 } as const;

const PG_SSL_REQUEST = "0000000804d2162f"; // SSLRequest (PostgreSQL documentation 55.7)
const PG_READY = Buffer.from("5a0000000549", "hex"); // ReadyForQuery, idle
const HTTP_REPLY = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
/** What clients say first, hexadecimal. */
export const HELLO = {
  http: hex("GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"),
  postgresql: PG_SSL_REQUEST,
  query: hex("Q\x00\x00\x00\x0dselect 1\x00"), // Query
  ssh: hex("SSH-2.0-tunnel\r\n"),
} as const;
const TTL_SECONDS = 60;

/** Starts one of them; it answers when this returns. */
export async function serve(lab: Lab, where: string, role: Role): Promise<Child> {
  const child = lab.spawn(where, [process.execPath, fileURLToPath(import.meta.url), JSON.stringify(role)]);
  await child.line((line) => line === "ready");
  return child;
}

/** A self-signed certificate for these names. */
export async function certificate(lab: Lab, names: readonly string[]): Promise<Certificate> {
  const made = { key: lab.file("tls.key", ""), cert: lab.file("tls.crt", "") };
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", made.key, "-out", made.cert];
  const subject = ["-subj", "/CN=namegate demo", "-addext", `subjectAltName=${names.map((name) => `DNS:${name}`).join(",")}`];
  await lab.run("node", ["openssl", "req", "-x509", "-days", "2", ...key, ...subject]);
  return made;
}

function resolver(port: number, names: Names): Promise<unknown> {
  const answer = (socket: Socket) => (bytes: Buffer, peer: { port: number; address: string }) => {
    const reply = dnsReply(bytes, names);
    if (reply !== undefined) socket.send(reply, peer.port, peer.address);
  };
  return Promise.all(
    (["udp4", "udp6"] as const).map((type) => {
      const socket = createSocket({ type, ipv6Only: type === "udp6" });
      socket.on("message", answer(socket));
      return new Promise<void>((resolve) => socket.bind(port, resolve));
    }),
  );
}

function dnsReply(bytes: Buffer, names: Names): Buffer | undefined {
  let query: packet.DecodedPacket;
  try {
    query = packet.decode(bytes);
  } catch {
    return undefined;
  }
  const [question] = query.questions ?? [];
  if (question === undefined) return undefined;
  const { name, type } = question;
  const addresses = names[name.toLowerCase()];
  const wanted = (addresses ?? []).filter((address) => (address.includes(":") ? "AAAA" : "A") === type);
  return packet.encode({
    type: "response",
    id: query.id ?? 0,
    flags: packet.RECURSION_DESIRED | packet.RECURSION_AVAILABLE | (addresses === undefined ? 3 : 0), // NXDOMAIN
    questions: [question],
    answers: wanted.map((data) => ({ type: type as "A" | "AAAA", name, ttl: TTL_SECONDS, data })),
  });
}

function internet({ key, cert }: Certificate): Promise<unknown> {
  const https = createTls({ key: readFileSync(key), cert: readFileSync(cert) }, (socket) => {
    socket.on("error", () => {}).once("data", () => socket.end(HTTP_REPLY));
  });
  const postgresql = createServer((socket) => {
    socket.on("error", () => {}).on("data", (data) => socket.write(data.toString("hex") === PG_SSL_REQUEST ? "N" : PG_READY));
  });
  const echo = createServer((socket) => socket.on("error", () => {}).pipe(socket));
  return Promise.all([listening(https, PORT.https), listening(postgresql, PORT.postgresql), listening(echo, PORT.other)]);
}

function hex(text: string): string {
  return Buffer.from(text, "latin1").toString("hex");
}

function listening(server: Server, port: number): Promise<void> {
  return new Promise((resolve) => server.listen(port, "::", resolve));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const given = JSON.parse(process.argv[2] ?? "{}") as Role;
  await (given.role === "resolver" ? resolver(given.port, given.names) : internet(given));
  console.log("ready");
}
