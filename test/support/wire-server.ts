import { createServer, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";

/**
 * Listeners for clients whose servers no package of Debian's has (or only with all of Java or Erlang): each says just
 * enough, by its protocol's document, for a client library to believe that it is connected.
 */
export type WireServer = "kafka" | "mongodb" | "cassandra" | "amqp";

/** Starts one in the namespace `out`; it listens when this returns. */
export async function wireServer(lab: Lab, kind: WireServer, port: number): Promise<Child> {
  const child = lab.spawn("out", [process.execPath, fileURLToPath(import.meta.url), kind, String(port)]);
  await child.line((line) => line === "ready");
  return child;
}

const u8 = (n: number): Buffer => Buffer.from([n]);
const u16 = (n: number): Buffer => Buffer.from([n >> 8, n & 0xff]);
const u32 = (n: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(n);
  return bytes;
};
const i32le = (n: number): Buffer => u32(n).reverse();
const text = (value: string): Buffer => Buffer.concat([u16(value.length), Buffer.from(value)]);
const join = (...parts: readonly Buffer[]): Buffer => Buffer.concat(parts);

/** How long the message at the beginning is (undefined: not all of its header is there), and what is said to it. */
interface Wire {
  readonly length: (bytes: Buffer) => number | undefined;
  readonly answer: (message: Buffer) => Buffer | undefined;
}

/** Kafka protocol guide: ApiVersions (18) of version 0 only, so that Metadata (3) comes in version 0 too. */
const kafka: Wire = {
  length: (bytes) => (bytes.length < 4 ? undefined : 4 + bytes.readInt32BE(0)),
  answer: (message) => {
    const [key, version] = [message.readInt16BE(4), message.readInt16BE(6)];
    const body =
      key === 18
        ? join(u16(version > 0 ? 35 : 0), u32(2), u16(18), u16(0), u16(0), u16(3), u16(0), u16(0))
        : join(
            u32(1),
            u32(0),
            text("svc.example.com"),
            u32(9092),
            u32(1),
            u16(0),
            text("orders"),
            u32(1),
            u16(0),
            u32(0),
            u32(0),
            u32(1),
            u32(0),
            u32(1),
            u32(0),
          );
    return join(u32(4 + body.length), message.subarray(8, 12), body);
  },
};

/** BSON of { ismaster: true, maxWireVersion: 8, minWireVersion: 0, maxBsonObjectSize: 2 ** 24, ok: 1.0 }. */
const HELLO = ((): Buffer => {
  const name = (value: string): Buffer => Buffer.from(`${value}\0`);
  const int = (key: string, value: number): Buffer => join(u8(0x10), name(key), i32le(value));
  const one = Buffer.alloc(8);
  one.writeDoubleLE(1);
  const fields = [
    join(u8(8), name("ismaster"), u8(1)),
    int("maxWireVersion", 8),
    int("minWireVersion", 0),
    int("maxBsonObjectSize", 2 ** 24),
  ];
  const body = join(...fields, join(u8(1), name("ok"), one));
  return join(i32le(body.length + 5), body, u8(0));
})();

/** MongoDB wire protocol: OP_QUERY (2004) has an OP_REPLY (1), OP_MSG (2013) an OP_MSG; every command gets the same. */
const mongodb: Wire = {
  length: (bytes) => (bytes.length < 4 ? undefined : bytes.readInt32LE(0)),
  answer: (message) => {
    const query = message.readInt32LE(12) === 2004;
    const body = query ? join(i32le(8), Buffer.alloc(8), i32le(0), i32le(1), HELLO) : join(i32le(0), u8(0), HELLO);
    return join(i32le(16 + body.length), i32le(1), message.subarray(4, 8), i32le(query ? 1 : 2013), body);
  },
};

/** CQL binary protocol v4: OPTIONS and STARTUP are answered; whatever is asked then is an error with our words. */
const cassandra: Wire = {
  length: (bytes) => (bytes.length < 9 ? undefined : 9 + bytes.readInt32BE(5)),
  answer: (message) => {
    const opcode = message[4];
    const [said, body] =
      opcode === 5
        ? [6, join(u16(2), text("CQL_VERSION"), u16(1), text("3.4.4"), text("COMPRESSION"), u16(0))]
        : opcode === 1 || opcode === 0x0b
          ? [2, Buffer.alloc(0)]
          : [0, join(u32(0x2200), text("words from the listener"))];
    return join(u8(0x84), u8(0), message.subarray(2, 4), u8(said), u32(body.length), body);
  },
};

/** AMQP 0-9-1: the header and the methods that have an answer. */
const amqp: Wire = {
  length: (bytes) => (bytes[0] === 0x41 ? 8 : bytes.length < 7 ? undefined : 8 + bytes.readUInt32BE(3)),
  answer: (message) => {
    const method = (channel: Buffer, id: number, ...body: Buffer[]): Buffer => {
      const payload = join(u32(id), ...body);
      return join(u8(1), channel, u32(payload.length), payload, u8(0xce));
    };
    const long = (value: string): Buffer => join(u32(value.length), Buffer.from(value));
    if (message[0] === 0x41) return method(u16(0), 0x000a000a, u8(0), u8(9), u32(0), long("PLAIN"), long("en_US"));
    if (message[0] !== 1) return undefined;
    const channel = message.subarray(1, 3);
    switch (message.readUInt32BE(7)) {
      case 0x000a000b: // Connection.StartOk
        return method(channel, 0x000a001e, u16(100), u32(131072), u16(0));
      case 0x000a0028: // Connection.Open
        return method(channel, 0x000a0029, u8(0));
      case 0x000a0032: // Connection.Close
        return method(channel, 0x000a0033);
      case 0x0014000a: // Channel.Open
        return method(channel, 0x0014000b, u32(0));
      case 0x00140028: // Channel.Close
        return method(channel, 0x00140029);
      default:
        return undefined;
    }
  },
};

const WIRES: Readonly<Record<WireServer, Wire>> = { kafka, mongodb, cassandra, amqp };

function speak({ length, answer }: Wire, socket: Socket): void {
  let bytes: Buffer = Buffer.alloc(0);
  socket
    .on("error", () => {})
    .on("data", (more) => {
      bytes = join(bytes, more);
      for (let whole = length(bytes); whole !== undefined && bytes.length >= whole; whole = length(bytes)) {
        const said = answer(bytes.subarray(0, whole));
        if (said !== undefined) socket.write(said);
        bytes = bytes.subarray(whole);
      }
    });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [kind, port] = process.argv.slice(2) as [WireServer, string];
  createServer((socket) => speak(WIRES[kind], socket)).listen(Number(port), "::", () => console.log("ready"));
}
