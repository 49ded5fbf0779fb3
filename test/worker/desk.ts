import { NameList } from "../../src/dns/elsewhere.ts";
import { Meter, newBlock } from "../../src/worker/meter.ts";
import { NfVerdict, type PacketQueue, type RawSender, RECORD_WORDS, RecordWord } from "../../src/base/addon.ts";
import { type Ip, parseIp } from "../../src/base/address.ts";
import { newPacket } from "../../src/capture/decode.ts";
import { tcpSegment, udpReply } from "../../src/dns/packets.ts";
import type { Element } from "../../src/firewall/ipset.ts";
import { marks } from "../../src/firewall/marks.ts";
import type { EventDraft } from "../../src/model/event.ts";
import { TcpFlag } from "../../src/model/packet.ts";
import type { Policy } from "../../src/model/policy.ts";
import type { Pod } from "../../src/model/snapshot.ts";
import { readManifests } from "../../src/policy/read.ts";
import { admit } from "../../src/worker/admission.ts";
import { type Context, newCounters } from "../../src/worker/context.ts";
import { elementKey, type FixedRole, type Kernel } from "../../src/worker/kernel.ts";
import { PodTable } from "../../src/worker/pod-table.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { UnknownPods } from "../../src/worker/unknown.ts";

/** What a packet thread has, with a kernel that only writes down what it is told. */

export const MARKS = marks();
export const ip = (text: string): Ip => parseIp(text) as Ip;
export const RESOLVER = ip("10.96.0.10");

export function podOf(name: string, addresses: readonly string[], iface: string, uid = `uid-${name}`): Pod {
  const key = `shop/${name}`;
  const own = addresses.map(ip);
  return {
    key,
    uid,
    namespace: "shop",
    name,
    labels: { app: name },
    serviceAccountName: "default",
    interface: iface,
    addresses: own,
    searches: [],
  };
}

export function policyOf(name: string, mode: Policy["mode"]): Policy {
  const { policies, problems } = readManifests(
    "test",
    JSON.stringify({
      apiVersion: "namegate.dev/v1alpha1",
      kind: "EgressPolicy",
      metadata: { name, namespace: "shop" },
      spec: { mode, egress: [{ action: "Accept", to: [{ domainNames: ["api.example.com"] }], ports: [{ port: 443 }] }] },
    }),
  );
  if (policies[0] === undefined) throw new Error(JSON.stringify(problems));
  return policies[0];
}

export function desk() {
  const fixed = new Map<string, Element>();
  const done: string[] = [];
  const key = (role: FixedRole, element: Element): string => `${role} ${elementKey(element)}`;
  const kernel = {
    marks: MARKS,
    commit: () => undefined,
    setResolvers: () => undefined,
    isResolver: (address: Ip) => address === RESOLVER,
    putFixed: (role: FixedRole, _of: number, element: Element) => {
      done.push(`put ${role} ${element.iface ?? ""}`);
      fixed.set(key(role, element), element);
    },
    removeFixed: (role: FixedRole, _of: number, element: Element) => {
      done.push(`remove ${role} ${element.iface ?? ""}`);
      fixed.delete(key(role, element));
    },
    allow: () => undefined,
    unallow: () => undefined,
    deny: () => undefined,
    undeny: () => undefined,
    remember: () => undefined,
    forget: () => undefined,
  } as unknown as Kernel;
  const events: EventDraft[] = [];
  const canaries: string[] = [];
  const clock = { nowMs: 1_800_000_000_000 };
  const context: Context = {
    kernel,
    pods: new PodTable(),
    limits: LIMITS_DEFAULT,
    counters: newCounters(),
    meter: new Meter(newBlock(0)),
    dnsServers: new NameList([]),
    nowMs: () => clock.nowMs,
    now: () => Math.floor(clock.nowMs / 1000),
    emit: (draft) => void events.push(draft),
    canary: (nonce) => void canaries.push(nonce),
    log: () => undefined,
  };
  const sender = { send: () => undefined, frame: () => undefined, close: () => undefined } as unknown as RawSender;
  const unknown = new UnknownPods(context, { mayGo: () => true }, () => undefined);

  /** What the admission queue makes of one packet: verdict, and the bits of ours in its mark. */
  const admitted = (packet: Uint8Array, sourceClass: number, indev: number): { verdict: number; mark: number } => {
    const packets = new Uint8Array(4096);
    const records = new Uint32Array(RECORD_WORDS);
    packets.set(packet);
    records[RecordWord.mark] = MARKS.value(sourceClass);
    records[RecordWord.indev] = indev;
    records[RecordWord.length] = packet.length;
    const verdicts = new Uint32Array([NfVerdict.drop, 0]);
    const queue = { packets, records, verdicts, settle: () => undefined } as unknown as PacketQueue;
    admit(context, queue, 1, false, sender, unknown);
    return { verdict: verdicts[0] as number, mark: MARKS.classOf(verdicts[1] as number) };
  };
  return { context, kernel, fixed, done, events, canaries, clock, unknown, admitted };
}

/** A datagram of a pod's, and the first segment of a connection. */
export function datagram(source: Ip, destination: Ip, port: number): Uint8Array {
  const back = { ...newPacket(), source: destination, sourcePort: port, destination: source, destinationPort: 40_000 };
  return udpReply(back, new Uint8Array(32)) as Uint8Array;
}

export function syn(source: Ip, destination: Ip, port: number): Uint8Array {
  const ends = { source, sourcePort: 40_000, destination, destinationPort: port };
  return tcpSegment({ ...ends, sequence: 1, acknowledgement: 0, flags: TcpFlag.SYN, hopLimit: 64 });
}
