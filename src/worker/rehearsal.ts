import { NfVerdict, type NetlinkSocket, type PacketQueue, RECORD_WORDS, RecordWord } from "../base/addon.ts";
import { type Ip, parseIp, putIp } from "../base/address.ts";
import { namePattern } from "../base/name.ts";
import { newPacket } from "../capture/decode.ts";
import { NameList } from "../dns/elsewhere.ts";
import { tcpSegment, udpReply } from "../dns/packets.ts";
import { Protocol, TcpFlag } from "../model/packet.ts";
import type { Policy } from "../model/policy.ts";
import { SourceClass, VerdictClass } from "../model/verdict.ts";
import { admit } from "./admission.ts";
import { type Context, type Counters, newCounters } from "./context.ts";
import { rulebook } from "./guard.ts";
import { Inspection } from "./inspection.ts";
import { Kernel } from "./kernel.ts";
import { Meter, newBlock } from "./meter.ts";
import { NameWatch } from "./name-watch.ts";
import { PodTable } from "./pod-table.ts";
import { GuardedPod } from "./pods.ts";
import { LIMITS_DEFAULT } from "./protocol.ts";
import { Replies } from "./replies.ts";
import { UnknownPods } from "./unknown.ts";

/**
 * The packet thread's code is compiled by the engine while it runs: the first hundreds of packets cost several times what later
 * ones cost, and a node may need hours to have that many. So a newly started thread plays what packets will do, with a pod, a
 * queue and a kernel that are not there, between packets that are. Nothing of it reaches the real tables.
 */
export const ROUNDS = 400;
/** Addresses that the played pod learns, over and over. */
const ADDRESSES = 64;
const PORT = 443;
const POD = parseIp("192.0.2.1") as Ip; // RFC 5737
const RESOLVER = parseIp("192.0.2.53") as Ip;
const SEQUENCE = 1000;

/** What `openssl s_client -servername api.example.com -alpn h2,http/1.1` sends. */
export const HELLO = Buffer.from(
  "160301014e0100014a0303a7123da8eb47f8f7d731d180c76737866e3cc8f5dd7009df4e6959e9470f768e204f08374943a572276bfa476cf03d5974" +
    "c68ab718956063412b6472b00bbc09e1003e130213031301c02cc030009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039" +
    "c009c0130033009d009c003d003c0035002f00ff010000c300000014001200000f6170692e6578616d706c652e636f6d000b000403000102000a0016" +
    "0014001d0017001e0019001801000101010201030104002300000010000e000c02683208687474702f312e310016000000170000000d002a00280403" +
    "05030603080708080809080a080b080408050806040105010601030303010302040205020602002b0009080304030303020301002d00020101003300" +
    "260024001d002050ddece4aad9bbe71f9d05c2fa4e89337006aff04c964af8288c485d05e8e341",
  "hex",
);

const POLICY: Policy = {
  id: "rehearsal/rehearsal",
  kind: "EgressPolicy",
  namespace: "rehearsal",
  name: "rehearsal",
  tier: "Namespace",
  priority: 0,
  mode: "Enforce",
  subject: { podSelector: { matchLabels: {}, matchExpressions: [] }, namespaceSelector: undefined, serviceAccountNames: undefined },
  dns: { queries: "All", minTtlMs: 0, maxTtlMs: 3_600_000, graceMs: 0 },
  rules: [
    {
      name: "tls",
      action: "Accept",
      anyDestination: false,
      names: ["*.example.com"].flatMap((text) => namePattern(text) ?? []),
      cnames: "Ignore",
      networks: [],
      ports: [{ protocol: Protocol.TCP, first: PORT, last: PORT }],
      application: "tls",
      tls: { ech: "Deny", missingServerName: undefined, legacy: "Deny", opaque: "Deny" },
      identity: [],
      proxy: undefined,
    },
  ],
};

/** Every `next` plays one lookup, one connection with its hello and its confirmation, and one denial. Returns what was counted. */
export function* rehearse(real: Pick<Context, "now" | "nowMs"> & { kernel: Pick<Kernel, "marks"> }): Generator<void, Counters> {
  const context: Context = {
    kernel: new Kernel(agreeable(), real.kernel.marks),
    pods: new PodTable(),
    limits: LIMITS_DEFAULT,
    dnsServers: new NameList([]),
    counters: newCounters(),
    meter: new Meter(newBlock(0)),
    nowMs: real.nowMs,
    now: real.now,
    emit: () => undefined,
    log: () => undefined,
    canary: () => undefined,
  };
  const pod = {
    key: "rehearsal/pod",
    uid: "rehearsal",
    namespace: "rehearsal",
    name: "pod",
    labels: {},
    serviceAccountName: "default",
    interface: "rehearsal",
    addresses: [POD],
    searches: [],
  };
  const book = rulebook([POLICY]);
  if (book === undefined) return context.counters;
  context.pods.set(new GuardedPod(pod, book, { kind: "routed", interface: "rehearsal", index: 0 }, context.kernel, LIMITS_DEFAULT));
  const sender = { send: () => undefined, frame: () => undefined, close: () => undefined };
  const replies = new Replies(context, new NameWatch(context, 0));
  const inspection = new Inspection(context, sender);
  const unknown = new UnknownPods(context, { mayGo: () => true }, () => undefined);
  const { marks } = context.kernel;
  // As NG-JUDGED, NG-ANSWERED and NG-NEW leave them.
  const fromPod = 0;
  const fromServer = marks.value(VerdictClass.ours);
  const isNew = marks.value(SourceClass.enforce);
  const hello = { sequence: SEQUENCE, acknowledgement: SEQUENCE, flags: TcpFlag.PSH | TcpFlag.ACK, hopLimit: 64 };
  const answer = { ...hello, acknowledgement: SEQUENCE + HELLO.length, flags: TcpFlag.ACK };
  const syn = { ...hello, acknowledgement: 0, flags: TcpFlag.SYN };
  const queue = playedQueue();
  for (let round = 0; round < ROUNDS; round++) {
    const server = parseIp(`198.18.0.${round % ADDRESSES}`) as Ip; // RFC 2544
    const ends = { source: POD, sourcePort: 32_768 + round, destination: server, destinationPort: PORT };
    const back = { source: server, sourcePort: PORT, destination: POD, destinationPort: ends.sourcePort };
    replies.hold(queue, queue.put(dnsReply(server, round), 0));
    inspection.read(queue, queue.put(tcpSegment({ ...ends, ...hello }, HELLO), fromPod), false);
    inspection.read(queue, queue.put(tcpSegment({ ...back, ...answer }), fromServer), false);
    admit(context, queue, queue.put(tcpSegment({ ...ends, ...syn, destinationPort: 1024 + round }), isNew), false, sender, unknown);
    yield;
  }
  return context.counters;
}

/** A reply that gives api.example.com this address. */
function dnsReply(address: Ip, id: number): Uint8Array {
  const name = [3, ...Buffer.from("api"), 7, ...Buffer.from("example"), 3, ...Buffer.from("com"), 0];
  const question = [...name, 0, 1, 0, 1];
  const dns = Uint8Array.from([
    id >> 8,
    id & 255,
    0x81,
    0x80,
    0,
    1,
    0,
    1,
    0,
    0,
    0,
    0,
    ...question,
    0xc0,
    12,
    0,
    1,
    0,
    1,
    0,
    0,
    1,
    44,
    0,
    4,
    0,
    0,
    0,
    0,
  ]);
  putIp(dns, dns.length - 4, address);
  const query = { ...newPacket(), source: POD, sourcePort: 40_000, destination: RESOLVER, destinationPort: 53 };
  return udpReply(query, dns) as Uint8Array;
}

/** A queue with one packet at a time, whose verdicts nobody reads. */
function playedQueue(): PacketQueue & { put(packet: Uint8Array, mark: number): 1 } {
  const packets = new Uint8Array(4096);
  const records = new Uint32Array(RECORD_WORDS);
  return {
    packets,
    records,
    verdicts: new Uint32Array([NfVerdict.drop, 0]),
    put: (packet, mark) => {
      packets.set(packet);
      records[RecordWord.id] = (records[RecordWord.id] as number) + 1;
      records[RecordWord.mark] = mark;
      records[RecordWord.length] = records[RecordWord.fullLength] = packet.length;
      return 1;
    },
    start: () => undefined,
    settle: () => undefined,
    release: () => undefined,
    replace: () => undefined,
    stats: () => ({ received: 0, settled: 0, gaps: 0, enobufs: 0, rebinds: 0, late: 0, held: 0 }),
    close: () => undefined,
  };
}

const NLMSGHDR_BYTES = 16;
const NLMSG_ERROR = 2;
const ACK_BYTES = NLMSGHDR_BYTES + 4 + NLMSGHDR_BYTES;

/** A kernel that agrees to everything: each message is acknowledged (struct nlmsgerr with error 0, linux/netlink.h). */
function agreeable(): NetlinkSocket {
  return {
    transact: (request, length, reply, acks) => {
      const [asked, answers] = [request, reply].map((bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)) as [
        DataView,
        DataView,
      ];
      let at = 0;
      for (let i = 0, from = 0; i < acks && from + NLMSGHDR_BYTES <= length; i++, at += ACK_BYTES) {
        answers.setUint32(at, ACK_BYTES, true);
        answers.setUint16(at + 4, NLMSG_ERROR, true);
        answers.setUint32(at + 8, asked.getUint32(from + 8, true), true); // its sequence number
        answers.setInt32(at + NLMSGHDR_BYTES, 0, true);
        from += (asked.getUint32(from, true) + 3) & ~3;
      }
      return at;
    },
    send: () => undefined,
    receive: () => 0,
    close: () => undefined,
  };
}
