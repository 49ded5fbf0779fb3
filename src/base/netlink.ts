/**
 * Netlink messages as nfnetlink wants them: a 16-byte nlmsghdr and TLVs in host order (little endian on every CPU in
 * package.json), a 4-byte nfgenmsg, and values mostly in network order. rtnetlink has longer headers and values in host
 * order. Writing lives here, reading in netlink-read.ts; what the attributes mean lives in firewall's ipset-*.ts and
 * conntrack-*.ts and in attach's rtnetlink.ts.
 */

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_DUMP = 0x300;

export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

export const NLA_F_NESTED = 0x8000;
export const NLA_F_NET_BYTEORDER = 0x4000;

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 10;

export const HEADER_BYTES = 16;
/** nlmsghdr and nfgenmsg. */
export const MESSAGE_BYTES = 20;
const WRITER_BYTES_MAX = 64 * 2 ** 20;
/** What a writer keeps for the next time. */
const WRITER_BYTES_KEPT = 2 ** 20;

let sequence = 1;

/** A run of `count` sequence numbers, unique in this thread (1..2^31). Returns the first. */
export function sequences(count: number): number {
  if (sequence + count > 0x7fffffff) sequence = 1;
  const first = sequence;
  sequence += count;
  return first;
}

/** Appends to bytes of its own, which grow; reset keeps them, so that one writer serves a whole hot path. */
export class Writer {
  bytes: Buffer;
  at = 0;

  constructor(capacity = 4096) {
    this.bytes = Buffer.alloc(capacity);
  }

  reset(): void {
    this.at = 0;
    if (this.bytes.length > WRITER_BYTES_KEPT) this.bytes = Buffer.alloc(4096);
  }

  /** Makes room for `count` more bytes. */
  room(count: number): void {
    if (this.at + count <= this.bytes.length) return;
    if (this.at + count > WRITER_BYTES_MAX) throw new RangeError("netlink request too large");
    const bigger = Buffer.alloc(Math.max(this.bytes.length * 2, this.at + count));
    this.bytes.copy(bigger, 0, 0, this.at);
    this.bytes = bigger;
  }

  u32be(value: number): void {
    const { bytes, at } = this;
    bytes[at] = value >>> 24;
    bytes[at + 1] = value >>> 16;
    bytes[at + 2] = value >>> 8;
    bytes[at + 3] = value;
    this.at = at + 4;
  }

  private header(type: number, length: number): void {
    const { bytes, at } = this;
    bytes[at] = length;
    bytes[at + 1] = length >>> 8;
    bytes[at + 2] = type;
    bytes[at + 3] = type >>> 8;
    this.at = at + 4;
  }

  attrU8(type: number, value: number): void {
    this.room(8);
    this.header(type, 5);
    const { bytes, at } = this;
    bytes[at] = value;
    bytes[at + 1] = 0;
    bytes[at + 2] = 0;
    bytes[at + 3] = 0;
    this.at = at + 4;
  }

  attrU16(type: number, value: number): void {
    this.room(8);
    this.header(type, 6);
    const { bytes, at } = this;
    bytes[at] = value >>> 8;
    bytes[at + 1] = value;
    bytes[at + 2] = 0;
    bytes[at + 3] = 0;
    this.at = at + 4;
  }

  attrU32(type: number, value: number): void {
    this.room(8);
    this.header(type, 8);
    this.u32be(value);
  }

  /** `high` and `low` are the halves of a 64-bit value in network order. */
  attrU64(type: number, high: number, low: number): void {
    this.room(12);
    this.header(type, 12);
    this.u32be(high);
    this.u32be(low);
  }

  /** A value in host order (rtnetlink). */
  attrU32le(type: number, value: number): void {
    this.room(8);
    this.header(type, 8);
    this.at = this.bytes.writeUInt32LE(value >>> 0, this.at);
  }

  /** Text, one octet a char (raw octet strings such as Ip). */
  attrOctets(type: number, octets: string): void {
    const padded = (octets.length + 3) & ~3;
    this.room(4 + padded);
    this.header(type, 4 + octets.length);
    const { bytes, at } = this;
    for (let i = 0; i < octets.length; i++) bytes[at + i] = octets.charCodeAt(i);
    for (let i = octets.length; i < padded; i++) bytes[at + i] = 0;
    this.at = at + padded;
  }

  /** UTF-8 text and a NUL. The caller has bounded `text`. */
  attrText(type: number, text: string): void {
    this.room(4 + text.length * 3 + 4);
    const start = this.at;
    this.at = start + 4;
    const { bytes } = this;
    let i = 0;
    for (; i < text.length; i++) {
      const c = text.charCodeAt(i);
      if (c > 127) break;
      bytes[this.at + i] = c;
    }
    const written = i === text.length ? i : bytes.write(text, this.at, "utf8");
    this.at = start;
    this.header(type, 4 + written + 1);
    const end = start + ((4 + written + 1 + 3) & ~3);
    bytes.fill(0, start + 4 + written, end);
    this.at = end;
  }

  /** Opens a nested attribute; give the returned position to `close`. */
  open(type: number): number {
    this.room(4);
    const start = this.at;
    this.header(type | NLA_F_NESTED, 0);
    return start;
  }

  /** Closes a nested attribute opened at `start`. Its length must stay below 64 KB. */
  close(start: number): void {
    const length = this.at - start;
    this.bytes[start] = length;
    this.bytes[start + 1] = length >>> 8;
  }

  /** Starts a message; `end` must follow. `type` is subsystem << 8 | command. */
  begin(type: number, flags: number, seq: number, family: number): number {
    this.room(MESSAGE_BYTES);
    const { bytes, at } = this;
    bytes.fill(0, at, at + MESSAGE_BYTES);
    bytes.writeUInt16LE(type, at + 4);
    bytes.writeUInt16LE(flags, at + 6);
    bytes.writeUInt32LE(seq, at + 8);
    bytes[at + 16] = family;
    this.at = at + MESSAGE_BYTES;
    return at;
  }

  /** Zeros: the rest of a header that is longer than nfgenmsg. */
  zeros(count: number): void {
    this.room(count);
    this.bytes.fill(0, this.at, this.at + count);
    this.at += count;
  }

  end(start: number): void {
    this.bytes.writeUInt32LE(this.at - start, start);
  }

  /** Bytes `from`..`to` of another writer, as they are. */
  copy(other: Writer, from: number, to: number): void {
    this.room(to - from);
    other.bytes.copy(this.bytes, this.at, from, to);
    this.at += to - from;
  }
}
