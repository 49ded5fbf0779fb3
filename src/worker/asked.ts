import type { Ip } from "../base/address.ts";
import { type Packet, Protocol, TcpFlag } from "../model/packet.ts";

/** Connections of one pod whose translation is remembered, and packets between the two hooks. */
const TRANSLATIONS_MAX = 2048;
const UNDERWAY_MAX = 512;
/** Bytes of a datagram that tell it from another. */
const PRINT_OCTETS = 64;

interface Place {
  readonly address: Ip;
  readonly port: number;
}

/**
 * What one pod's connections asked for, by what DNAT has made of it. Somebody who accepts established connections before us
 * in mangle PREROUTING (Calico) leaves us their packets only behind DNAT, where the address is no longer the one that the
 * name resolved to. Their first packet comes by both hooks: it tells. Nothing else does: a port of the pod may have
 * connections to several places, and one must not be judged as another.
 */
export class Asked {
  private readonly translations = new Map<string, Place>();
  private readonly underway = new Map<string, Place | undefined>();
  /** Sequence numbers of the first bytes of connections that have sent a SYN. */
  private readonly starts = new Map<string, number>();

  /** A SYN, before DNAT; the last one counts. */
  starting({ protocol, tcpFlags, sourcePort, destination, destinationPort, sequence }: Packet): void {
    if (protocol !== Protocol.TCP || (tcpFlags & (TcpFlag.SYN | TcpFlag.ACK)) !== TcpFlag.SYN) return;
    put(this.starts, keyOf(protocol, sourcePort, destination, destinationPort), (sequence + 1) >>> 0, TRANSLATIONS_MAX);
  }

  /** Where the client's stream of such a connection begins, said once. */
  startOf(port: number, destination: Ip, destinationPort: number): number | undefined {
    const key = keyOf(Protocol.TCP, port, destination, destinationPort);
    const start = this.starts.get(key);
    this.starts.delete(key);
    return start;
  }

  /** A packet with class *inspect* or *watch* before DNAT. */
  begin(packet: Packet): void {
    this.starting(packet);
    const { destination: address, destinationPort: port } = packet;
    const print = printOf(packet);
    const other = this.underway.get(print);
    // Two that look the same, to two places: which of them comes out is not to be told.
    const same = other === undefined ? !this.underway.has(print) : other.address === address && other.port === port;
    put(this.underway, print, same ? { address, port } : undefined, UNDERWAY_MAX);
  }

  /** A connection of `protocol` from the pod's `port`, known from elsewhere (conntrack). */
  set(protocol: number, port: number, translated: Place, asked: Place): void {
    put(this.translations, keyOf(protocol, port, translated.address, translated.port), asked, TRANSLATIONS_MAX);
  }

  /** Writes the destination that was asked for into a packet of the pod's behind DNAT. False: nobody knows it. */
  restore(packet: Packet): boolean {
    const { protocol, sourcePort, destination, destinationPort } = packet;
    const print = printOf(packet);
    const key = keyOf(protocol, sourcePort, destination, destinationPort);
    const first = this.underway.get(print);
    this.underway.delete(print);
    const asked = first ?? this.translations.get(key);
    if (asked === undefined) return false;
    put(this.translations, key, asked, TRANSLATIONS_MAX);
    packet.destination = asked.address;
    packet.destinationPort = asked.port;
    return true;
  }
}

/** The newest is the last; beyond `max` the oldest goes. */
function put<T>(map: Map<string, T>, key: string, value: T, max: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= max) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    return;
  }
}

function keyOf(protocol: number, port: number, address: Ip, addressPort: number): string {
  return String.fromCharCode(protocol, port, addressPort) + address;
}

/** What DNAT leaves as it is. */
function printOf({ protocol, sourcePort, sequence, acknowledgement, tcpFlags, bytes, payloadStart, payloadEnd, source }: Packet): string {
  const own = String.fromCharCode(protocol, sourcePort) + source;
  if (protocol === Protocol.TCP) return `${own}${sequence} ${acknowledgement} ${tcpFlags} ${payloadEnd - payloadStart}`;
  const end = Math.min(payloadEnd, payloadStart + PRINT_OCTETS);
  return `${own}${payloadEnd - payloadStart} ${Buffer.from(bytes.buffer, bytes.byteOffset + payloadStart, Math.max(0, end - payloadStart)).toString("latin1")}`;
}
