import type { NetlinkSocket } from "../../src/base/addon.ts";
import { Attributes } from "../../src/base/netlink-read.ts";

/**
 * A kernel that knows add and del of hash:ip sets with timeouts, and has the real one's error rules: it stops at the first
 * refused element of a message and sends the message back with that element's line number; a missing set fails as a whole.
 */
export class FakeSocket implements NetlinkSocket {
  /** Each transact, hex. */
  readonly requests: string[] = [];
  messageBytesMax = 0;
  /** `set lastOctet` → timeout. */
  readonly state = new Map<string, number>();
  private readonly refuses: (set: string, lastOctet: number) => number;

  /** `refuses`: the error for adding an address, 0 for none; 2 is "no such set". */
  constructor(refuses: (set: string, lastOctet: number) => number) {
    this.refuses = refuses;
  }

  transact(bytes: Uint8Array, length: number, reply: Uint8Array, acks: number): number {
    const request = Buffer.from(bytes.slice(0, length));
    this.requests.push(request.toString("hex"));
    const answers: Buffer[] = [];
    for (let at = 0; at < length; ) {
      const size = request.readUInt32LE(at);
      this.messageBytesMax = Math.max(this.messageBytesMax, size);
      answers.push(this.answer(request.subarray(at, at + size)));
      at += (size + 3) & ~3;
    }
    if (answers.length !== acks) throw new Error(`${acks} acks asked for ${answers.length} messages`);
    const all = Buffer.concat(answers);
    reply.set(all);
    return all.length;
  }

  private answer(message: Buffer): Buffer {
    const add = message.readUInt16LE(4) === 0x609;
    const [data, adt, each] = [new Attributes(), new Attributes(), new Attributes()];
    let name = "";
    let lineAt = 0;
    const top = new Attributes().reset(message, 20, message.length);
    while (top.next()) {
      if (top.type === 2) name = top.text();
      if (top.type === 9) lineAt = top.at;
      if (top.type !== 8) continue;
      adt.into(top);
      while (adt.next()) {
        data.into(adt);
        let octet = 0;
        let timeout = 0;
        let line = 0;
        while (data.next()) {
          if (data.type === 1) {
            each.into(data);
            each.next();
            octet = message[each.at + each.length - 1] as number;
          } else if (data.type === 6) timeout = data.u32();
          else if (data.type === 9) line = data.u32();
        }
        const error = this.refuses(name, octet);
        if (error === 2) return this.error(message, 2, false);
        if (add && error !== 0) {
          message.writeUInt32BE(line, lineAt);
          return this.error(message, error, true);
        }
        if (add) this.state.set(`${name} ${octet}`, timeout);
        else this.state.delete(`${name} ${octet}`);
      }
    }
    return this.error(message, 0, false);
  }

  private error(message: Buffer, error: number, whole: boolean): Buffer {
    const body = whole ? message : message.subarray(0, 16);
    const answer = Buffer.alloc(20);
    answer.writeUInt32LE(20 + body.length, 0);
    answer.writeUInt16LE(2, 4);
    message.copy(answer, 8, 8, 12);
    answer.writeInt32LE(-error, 16);
    return Buffer.concat([answer, body]);
  }

  send(): void {}
  receive(): number {
    throw Object.assign(new Error("nothing to receive"), { code: "ETIMEDOUT" });
  }
  close(): void {}
}
