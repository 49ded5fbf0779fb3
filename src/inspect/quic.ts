import type { Bad } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Evidence } from "../model/verdict.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { Pieces, PIECES_BYTES_MAX } from "./pieces.ts";
import { addFrames } from "./quic-crypto.ts";
import { chloBytes, readChlo } from "./quic-google.ts";
import { type GooglePacket, readGooglePacket } from "./quic-google-packet.ts";
import { initialKeys, type InitialKeys, openInitial } from "./quic-keys.ts";
import { CID_BYTES_MAX, type LongPacket, longHeaderVersion, readLongPacket } from "./quic-packet.ts";
import { isReservedVersion, otherVersion, type QuicVersion, quicVersion } from "./quic-versions.ts";
import { helloEvidence } from "./tls-evidence.ts";
import { readHelloBody } from "./tls-hello.ts";

/**
 * QUIC (RFC 9000, RFC 9001, RFC 9369): the ClientHello of a client's first datagrams. Packets that nobody could open are
 * skipped, as a server does; a packet counts when its tag is right, and then there is no doubt. A version that cannot be read
 * is named without a server name (`version` is then its number), so that a rule that wants one denies it.
 *
 * What it cannot see: a second QUIC connection between the same ports, opened after the verdict on the first.
 */

const DATAGRAMS_MAX = 64;
const INITIALS_MAX = 32; // that are tried to be opened: a hello of PIECES_BYTES_MAX needs 15
const KEYS_MAX = 4; // different first connection ids: one, and one more for each Retry
const DATAGRAM_BYTES_MIN = 1200; // RFC 9000 §14.1: a server must discard an Initial in a smaller one
const FIRST_CID_BYTES_MIN = 8; // RFC 9000 §7.2
const HANDSHAKE_HEADER_BYTES = 4;

export const quicInspector: Inspector = {
  application: "quic",
  transports: [Protocol.UDP],
  opens: "client",
  read: ({ client }) => readQuic(client),
};

/** What is known after some datagrams. */
interface Walk {
  readonly keys: InitialKeys[];
  stream: Pieces;
  /** Of the packets in `stream`; undefined until one was opened. */
  version: QuicVersion | undefined;
  tried: number;
  /** Some datagram consists of long header packets of a version that we know. */
  shaped: boolean;
  unknown: number | undefined;
  small: boolean;
  bad: string | undefined;
}

function readQuic(run: Run): Reading {
  const walk: Walk = {
    keys: [],
    stream: new Pieces(),
    version: undefined,
    tried: 0,
    shaped: false,
    unknown: undefined,
    small: false,
    bad: undefined,
  };
  const have = run.end - run.start;
  const ends = run.ends.length > 0 || have === 0 ? run.ends : [run.end];
  let start = run.start;
  for (let i = 0; i < ends.length; i++) {
    const end = Math.min(ends[i] as number, run.end);
    if (i === 0) {
      const google = readGooglePacket(run.bytes, start, end);
      if (google !== undefined) return googleReading(google);
      if (longHeaderVersion(run.bytes, start, end) === undefined) return { bad: "no QUIC long header" };
    }
    readDatagram(run.bytes, start, end, walk);
    if (i === 0 && !walk.shaped && walk.unknown === undefined) return { bad: "no QUIC version that is known" };
    const reading = judge(walk);
    if (reading !== undefined) return reading;
    if (i >= DATAGRAMS_MAX || walk.tried >= INITIALS_MAX) return { bad: "too many Initials for one ClientHello", application: "quic" };
    start = end;
  }
  if (run.closed) return last(walk);
  const waits = walk.unknown !== undefined && walk.version === undefined;
  // It waits for a version negotiation: no server speaks a reserved version.
  if (waits) return { need: have + 1, of: "client", application: "quic", release: true };
  return { need: have + 1, of: "client", ...(walk.version === undefined ? {} : { application: "quic" }) };
}

/** A verdict that more datagrams cannot change. */
function judge(walk: Walk): Reading | undefined {
  if (walk.bad !== undefined) return { bad: walk.bad, application: "quic" };
  if (walk.version !== undefined) return readStream(walk, walk.version);
  if (walk.unknown === undefined || isReservedVersion(walk.unknown)) return undefined;
  return { application: "quic", serverName: undefined, version: otherVersion(walk.unknown) as string };
}

/** No more will come. */
function last({ version, shaped, unknown }: Walk): Reading {
  if (version === undefined && unknown !== undefined)
    return { application: "quic", serverName: undefined, version: otherVersion(unknown) as string };
  if (shaped)
    return { bad: version === undefined ? "no Initial that can be opened" : "a ClientHello that ends too early", application: "quic" };
  return { bad: "no QUIC" };
}

/** The packets of one datagram (RFC 9000 §12.2). */
function readDatagram(bytes: Uint8Array, start: number, end: number, walk: Walk): void {
  let at = start;
  while (at < end && walk.bad === undefined) {
    const version = longHeaderVersion(bytes, at, end);
    if (version === undefined) return; // a short header, or padding: to the end
    if (quicVersion(version) === undefined) {
      if (at === start && isUnknown(bytes, start, end, version)) walk.unknown ??= version;
      return;
    }
    const packet = readLongPacket(bytes, at, end);
    if ("bad" in packet) return;
    if (packet.end === end) walk.shaped = true;
    if (packet.type === "initial") {
      walk.shaped = true;
      readInitial(bytes, packet, end - start, walk);
    }
    at = packet.end;
  }
}

/** A first packet of a version that we cannot read: RFC 8999, and the sizes that all versions until now keep. */
function isUnknown(bytes: Uint8Array, start: number, end: number, version: number): boolean {
  if (end - start < DATAGRAM_BYTES_MIN || otherVersion(version) === undefined) return false;
  const dcidBytes = bytes[start + 5] as number;
  const scidBytes = bytes[start + 6 + dcidBytes] as number;
  return dcidBytes >= FIRST_CID_BYTES_MIN && dcidBytes <= CID_BYTES_MAX && scidBytes <= CID_BYTES_MAX;
}

function readInitial(bytes: Uint8Array, packet: LongPacket, datagramBytes: number, walk: Walk): void {
  if (walk.tried >= INITIALS_MAX) return;
  walk.tried++;
  const frames = open(bytes, packet, walk.keys);
  if (frames === undefined) return;
  // Another version after a version negotiation begins again; after a Retry the hello must be the same (RFC 9000 §17.2.5.2).
  if (walk.version !== undefined && walk.version !== packet.version) walk.stream = new Pieces();
  walk.version = packet.version;
  const before = walk.stream.count;
  walk.bad = addFrames(frames, walk.stream, packet.version.google)?.bad;
  if (datagramBytes < DATAGRAM_BYTES_MIN && walk.stream.count > before) walk.small = true;
}

/** Opens with the keys that there are (a server's connection id changes nothing), or with those of the packet's own id. */
function open(bytes: Uint8Array, packet: LongPacket, keys: InitialKeys[]): Uint8Array | undefined {
  let own = false;
  for (const known of keys) {
    if (known.version !== packet.version) continue;
    const same = Buffer.compare(known.dcid, packet.dcid) === 0;
    own ||= same;
    // Keys that opened nothing yet are tried where they belong only: junk must stay cheap.
    if (!same && !known.proven) continue;
    const frames = openInitial(bytes, packet, known);
    if (frames !== undefined) return frames;
  }
  if (own || keys.length >= KEYS_MAX) return undefined;
  const fresh = initialKeys(packet.version, packet.dcid);
  keys.push(fresh);
  return openInitial(bytes, packet, fresh);
}

/** The hello, once it is whole. */
function readStream({ stream, small }: Walk, version: QuicVersion): Reading | undefined {
  const wanted = version.handshake === "tls" ? helloBytes(stream) : chloBytes(stream.bytes, stream.prefix);
  if (typeof wanted !== "number") return { ...wanted, application: "quic" };
  if (wanted > PIECES_BYTES_MAX) return { bad: `a ClientHello of ${wanted} bytes`, application: "quic" };
  if (stream.prefix < wanted) return undefined;
  const said = version.handshake === "tls" ? readHello(stream.bytes, wanted) : readChlo(stream.bytes, wanted);
  if ("bad" in said) return { ...said, application: "quic" };
  const evasion = stream.conflict
    ? { evasion: "CRYPTO frames that disagree" }
    : small
      ? { evasion: `an Initial in a datagram of less than ${DATAGRAM_BYTES_MIN} bytes` }
      : {};
  return { ...said, application: "quic", version: version.name, ...evasion };
}

/** A version before 50: its CHLO is in one packet, or it has no name that we could see. */
function googleReading({ version, data }: GooglePacket): Reading {
  const bytes = data === undefined ? { bad: "no CHLO" } : chloBytes(data, data.length);
  if (data === undefined || typeof bytes !== "number" || bytes > data.length)
    return { application: "quic", serverName: undefined, version };
  const said = readChlo(data, bytes);
  return "bad" in said ? { ...said, application: "quic" } : { ...said, application: "quic", version };
}

function helloBytes({ bytes, prefix }: Pieces): number | Bad {
  if (prefix > 0 && bytes[0] !== 1) return { bad: "not a ClientHello" };
  if (prefix < HANDSHAKE_HEADER_BYTES) return HANDSHAKE_HEADER_BYTES;
  return HANDSHAKE_HEADER_BYTES + (((bytes[1] as number) << 16) | ((bytes[2] as number) << 8) | (bytes[3] as number));
}

function readHello(bytes: Uint8Array, length: number): Omit<Evidence, "application"> | Bad {
  const hello = readHelloBody(bytes, HANDSHAKE_HEADER_BYTES, length);
  return "bad" in hello ? hello : helloEvidence("quic", hello, "q");
}
