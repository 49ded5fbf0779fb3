import { randomFrom } from "../../test/dns/encode.ts";

/**
 * A capture of many short TLS connections, made in memory: handshake, ClientHello, a server's first segment, FIN from both.
 * Three kinds of client: a library (1 segment), a browser with GREASE that shuffles its extensions (1 segment), and one with a
 * post-quantum key share (2 segments).
 */
const MSS = 1400;
const FLAGS = { syn: 2, synAck: 18, ack: 16, push: 24, fin: 17 } as const;
const CIPHERS = [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x9c, 0x9d, 0x2f, 0x35];
const SIGNATURES = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601];

const u16 = (value: number): number[] => [value >> 8, value & 255];
const sized = (body: readonly number[]): number[] => [...u16(body.length), ...body];
const u16s = (list: readonly number[]): number[] => list.flatMap(u16);
const filled = (count: number, random: () => number): number[] => Array.from({ length: count }, () => random() & 255);

export function clientHello(kind: number, name: string, random: () => number): Uint8Array {
  const browser = kind > 0;
  const grease = browser ? [0x0a0a + 0x1010 * (random() & 15)] : [];
  const host = [...Buffer.from(name, "latin1")];
  const share = kind === 2 ? 1216 : 32;
  const extensions: [number, number[]][] = [
    [0, sized([0, ...sized(host)])],
    [23, []],
    [0xff01, [0]],
    [10, sized(u16s([...grease, ...(kind === 2 ? [0x11ec] : []), 29, 23, 24]))],
    [11, [1, 0]],
    [35, []],
    [16, sized([2, 0x68, 0x32, 8, ...Buffer.from("http/1.1")])],
    [13, sized(u16s(SIGNATURES))],
    [51, sized([...u16(kind === 2 ? 0x11ec : 29), ...sized(filled(share, random))])],
    [45, [1, 1]],
    [43, [4 + 2 * grease.length, ...u16s([...grease, 0x0304, 0x0303])]],
    ...(browser
      ? ([
          [27, [2, 0, 2]],
          [17513, sized([2, 0x68, 0x32])],
          [5, [1, 0, 0, 0, 0]],
        ] as [number, number[]][])
      : []),
  ];
  if (browser)
    for (let i = extensions.length - 1; i > 0; i--) {
      const k = random() % (i + 1);
      [extensions[i], extensions[k]] = [extensions[k] as [number, number[]], extensions[i] as [number, number[]]];
    }
  if (browser) extensions.unshift([grease[0] as number, []]);
  const body = [
    3,
    3,
    ...filled(32, random),
    32,
    ...filled(32, random),
    ...sized(u16s([...grease, ...CIPHERS])),
    1,
    0,
    ...sized(extensions.flatMap(([type, data]) => [...u16(type), ...sized(data)])),
  ];
  return Uint8Array.from([22, 3, 1, ...u16(body.length + 4), 1, 0, ...u16(body.length), ...body]);
}

/** How many bytes the frames of `flows` connections take at most. */
const FLOW_BYTES_MAX = 9 * (16 + 14 + 20 + 20) + 2200 + 200;

/** A pcap file (Ethernet, IPv4) of `flows` connections, in groups of `together` whose packets take turns. */
export function tlsCapture(flows: number, together = 64): { readonly bytes: Uint8Array; readonly packets: number } {
  const random = randomFrom(7);
  const out = Buffer.alloc(24 + flows * FLOW_BYTES_MAX);
  out.writeUInt32LE(0xa1b2c3d4, 0);
  out.writeUInt16LE(2, 4);
  out.writeUInt16LE(4, 6);
  out.writeUInt32LE(65_535, 16);
  out.writeUInt32LE(1, 20);
  let at = 24;
  let packets = 0;
  const serverHello = Uint8Array.from([22, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3, ...filled(116, random), 20, 3, 3, 0, 1, 1]);
  const hellos = Array.from({ length: 4096 }, (_, i) =>
    clientHello(i % 10 < 4 ? 0 : i % 10 < 7 ? 1 : 2, `host-${i}.example-${i % 97}.com`, random),
  );

  const packet = (flow: number, fromClient: boolean, flags: number, sequence: number, payload: Uint8Array): void => {
    const total = 40 + payload.length;
    out.writeUInt32LE(1_700_000_000 + Math.floor(packets / 1e5), at);
    out.writeUInt32LE(packets % 1e5, at + 4);
    out.writeUInt32LE(total + 14, at + 8);
    out.writeUInt32LE(total + 14, at + 12);
    const ip = at + 30;
    out.writeUInt16BE(0x0800, ip - 2);
    out[ip] = 0x45;
    out.writeUInt16BE(total, ip + 2);
    out[ip + 8] = 64;
    out[ip + 9] = 6;
    const client = 0x0a000000 + (flow >> 5); // 32 connections a client
    const server = 0xc6120000 + (flow % 65_536);
    out.writeUInt32BE(fromClient ? client : server, ip + 12);
    out.writeUInt32BE(fromClient ? server : client, ip + 16);
    const port = 32_768 + (flow % 28_000);
    out.writeUInt16BE(fromClient ? port : 443, ip + 20);
    out.writeUInt16BE(fromClient ? 443 : port, ip + 22);
    out.writeUInt32BE(sequence, ip + 24);
    out[ip + 32] = 0x50;
    out[ip + 33] = flags;
    out.writeUInt16BE(65_535, ip + 34);
    out.set(payload, ip + 40);
    at = ip + total;
    packets++;
  };

  const nothing = new Uint8Array(0);
  const steps: readonly ((flow: number, hello: Uint8Array) => void)[] = [
    (flow) => packet(flow, true, FLAGS.syn, 1000, nothing),
    (flow) => packet(flow, false, FLAGS.synAck, 5000, nothing),
    (flow) => packet(flow, true, FLAGS.ack, 1001, nothing),
    (flow, hello) => packet(flow, true, FLAGS.push, 1001, hello.subarray(0, MSS)),
    (flow, hello) => {
      if (hello.length > MSS) packet(flow, true, FLAGS.push, 1001 + MSS, hello.subarray(MSS));
    },
    (flow) => packet(flow, false, FLAGS.push, 5001, serverHello),
    (flow, hello) => packet(flow, true, FLAGS.fin, 1001 + hello.length, nothing),
    (flow) => packet(flow, false, FLAGS.fin, 5001 + serverHello.length, nothing),
  ];
  for (let from = 0; from < flows; from += together) {
    for (const step of steps)
      for (let flow = from; flow < Math.min(from + together, flows); flow++) step(flow, hellos[flow % hellos.length] as Uint8Array);
  }
  return { bytes: out.subarray(0, at), packets };
}
