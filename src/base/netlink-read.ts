import { HEADER_BYTES, MESSAGE_BYTES, NLMSG_DONE, NLMSG_ERROR } from "./netlink.ts";

const NLA_TYPE_MASK = 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER

/** One message as it lies in `bytes`; a single object is filled again and again. */
export interface Message {
  bytes: Buffer;
  /** Where the nlmsghdr starts, where the payload starts (after nfgenmsg, when there is one), where the message ends. */
  start: number;
  payload: number;
  end: number;
  type: number;
  seq: number;
  /** nfgenmsg's family; 0 where there is none. */
  family: number;
  /** NLMSG_ERROR and NLMSG_DONE: the positive errno, 0 for an acknowledgement; else 0. */
  error: number;
}

export function newMessage(): Message {
  return { bytes: Buffer.alloc(0), start: 0, payload: 0, end: 0, type: 0, seq: 0, family: 0, error: 0 };
}

/**
 * Reads the message at `at` of `bytes`[0..end) into `message`. Returns where the next one starts; -1 when there is none
 * (the end, or bytes that are no message: whatever follows is unreadable too).
 */
export function readMessage(message: Message, bytes: Buffer, at: number, end: number): number {
  if (at + HEADER_BYTES > end || end > bytes.length) return -1;
  const length = bytes.readUInt32LE(at);
  if (length < HEADER_BYTES || at + length > end) return -1;
  message.bytes = bytes;
  message.start = at;
  message.end = at + length;
  message.type = bytes.readUInt16LE(at + 4);
  message.seq = bytes.readUInt32LE(at + 8);
  message.family = 0;
  message.error = 0;
  message.payload = at + HEADER_BYTES;
  if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
    if (length >= HEADER_BYTES + 4) message.error = Math.abs(bytes.readInt32LE(at + HEADER_BYTES));
  } else if (length >= MESSAGE_BYTES) {
    message.family = bytes[at + HEADER_BYTES] as number;
    message.payload = at + MESSAGE_BYTES;
  }
  return at + ((length + 3) & ~3);
}

/** Walks attributes. Every read checks its bounds: a value shorter than asked is 0, a broken length ends the walk. */
export class Attributes {
  bytes: Buffer;
  /** The attribute in hand: its type without flags, and where its value is. */
  type = 0;
  at = 0;
  length = 0;
  private nextAt = 0;
  private end = 0;

  constructor() {
    this.bytes = Buffer.alloc(0);
  }

  /** Walks `start`..`end` of `bytes`. */
  reset(bytes: Buffer, start: number, end: number): this {
    this.bytes = bytes;
    this.end = Math.min(end, bytes.length);
    this.nextAt = start;
    this.length = 0;
    return this;
  }

  /** Walks the inside of the attribute that `outer` has in hand. */
  into(outer: Attributes): this {
    return this.reset(outer.bytes, outer.at, outer.at + outer.length);
  }

  next(): boolean {
    const { bytes, nextAt: at } = this;
    if (at + 4 > this.end) return false;
    const length = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
    if (length < 4 || at + length > this.end) {
      this.nextAt = this.end;
      return false;
    }
    this.type = ((bytes[at + 2] as number) | ((bytes[at + 3] as number) << 8)) & NLA_TYPE_MASK;
    this.at = at + 4;
    this.length = length - 4;
    this.nextAt = at + ((length + 3) & ~3);
    return true;
  }

  u8(): number {
    return this.length < 1 ? 0 : (this.bytes[this.at] as number);
  }

  u16(): number {
    const { bytes, at } = this;
    return this.length < 2 ? 0 : ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  }

  /** `offset` bytes into the value. */
  u32(offset = 0): number {
    if (this.length < offset + 4) return 0;
    const { bytes } = this;
    const at = this.at + offset;
    return (
      (((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)) >>>
      0
    );
  }

  /** A value in host order (rtnetlink). */
  s32le(): number {
    return this.length < 4 ? 0 : this.bytes.readInt32LE(this.at);
  }

  /** A 64-bit counter; exact below 2^53. */
  u64(): number {
    return this.u32() * 0x1_0000_0000 + this.u32(4);
  }

  /** UTF-8 up to the first NUL. */
  text(): string {
    let end = this.at;
    const limit = this.at + this.length;
    while (end < limit && this.bytes[end] !== 0) end++;
    return this.bytes.toString("utf8", this.at, end);
  }
}
