import type { NetlinkSocket } from "../base/addon.ts";
import type { Family } from "../base/address.ts";
import {
  Attr,
  Command,
  Data,
  FLAG_LIST_HEADER,
  FLAG_WITH_COMMENT,
  FLAG_WITH_COUNTERS,
  FLAG_WITH_SKBINFO,
  IPSET_PROTOCOL,
  NET,
  TIMEOUT_SECONDS_MAX,
  validSetName,
} from "./ipset-wire.ts";
import { readHeader, readProtocol, readRevisions, type SetHeader } from "./ipset-header.ts";
import {
  AF_INET,
  AF_INET6,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  sequences,
  Writer,
} from "../base/netlink.ts";
import { codeOf, exchange, receiveDump, REPLY_BYTES } from "../base/netlink-exchange.ts";
import { type Message, newMessage } from "../base/netlink-read.ts";
import { ipsetRefusal, noAnswer, type Refusal } from "./refusal.ts";

export { IpsetBatch } from "./ipset-batch.ts";
export { IpsetDump } from "./ipset-dump.ts";
export type { SetHeader } from "./ipset-header.ts";
export type { DumpedElement } from "./ipset-read.ts";
export type { BatchResult } from "./ipset-parts.ts";
export type { Element } from "./ipset-wire.ts";
export type { Refusal } from "./refusal.ts";

/**
 * The highest revision of each set type that we know how to write (the ipset tool 7.17's), and the lowest that has what
 * we need: skbinfo; for hash:net,iface also wildcards (kernel 5.5).
 */
const REVISIONS = {
  "hash:ip": { needed: 0, known: 6 },
  "hash:ip,port": { needed: 0, known: 7 },
  "hash:ip,port,ip": { needed: 5, known: 6 },
  "hash:ip,port,net": { needed: 7, known: 8 },
  "hash:net,iface": { needed: 7, known: 8 },
} as const;

export type SetType = keyof typeof REVISIONS;

/** A set to be made. What is absent is off, or the kernel's default (hashSize 1024, maxElements 65536). */
export interface SetSpec {
  readonly name: string;
  readonly type: SetType;
  readonly family: Family;
  readonly hashSize?: number;
  readonly maxElements?: number;
  /** Default timeout of elements, seconds; 0 is for ever. Absent: elements cannot have one. */
  readonly timeout?: number;
  readonly counters?: boolean;
  readonly comment?: boolean;
  readonly skbinfo?: boolean;
}

/** SETS_MAX of list(): the kernel's own bound (ip_set_id_t). */
const SETS_MAX = 65_535;

/**
 * Makes, removes and lists sets. Every method waits for the kernel and returns undefined (done) or why it refused;
 * none throws. The socket must have no dump under way.
 */
export class Ipset {
  private readonly socket: NetlinkSocket;
  private readonly request = new Writer(512);
  private readonly reply = Buffer.alloc(REPLY_BYTES);
  private readonly revisions = new Map<string, number | Refusal>();

  constructor(socket: NetlinkSocket) {
    this.socket = socket;
  }

  /** The protocol versions the kernel speaks; we need 7 to be among them (kernel 4.20). */
  protocol(): { readonly min: number; readonly max: number } | Refusal {
    let found = { min: 0, max: 0 };
    const refusal = this.ask(Command.protocol, 0, undefined, (message) => {
      found = readProtocol(message);
    });
    if (refusal !== undefined) return refusal;
    return found.min <= IPSET_PROTOCOL && IPSET_PROTOCOL <= found.max
      ? found
      : { code: "unsupported", text: `the kernel speaks ipset protocol ${found.min} to ${found.max}, not ${IPSET_PROTOCOL}` };
  }

  /** Those of `types` that this kernel lacks, with the reason; both families are asked. Loads the kernel modules. */
  probe(types: readonly SetType[]): readonly { readonly type: SetType; readonly family: Family; readonly refusal: Refusal }[] {
    const lacking: { type: SetType; family: Family; refusal: Refusal }[] = [];
    for (const type of types) {
      for (const family of [4, 6] as const) {
        const revision = this.revision(type, family);
        if (typeof revision !== "number") lacking.push({ type, family, refusal: revision });
      }
    }
    return lacking;
  }

  /** The highest revision that the kernel and we both know. Kept after the first question. */
  revision(type: SetType, family: Family): number | Refusal {
    const key = `${type}/${family}`;
    let revision = this.revisions.get(key);
    if (revision === undefined) {
      revision = this.askRevision(type, family);
      if (typeof revision === "number") this.revisions.set(key, revision);
    }
    return revision;
  }

  private askRevision(type: SetType, family: Family): number | Refusal {
    let found = { min: 0, max: 0 };
    const refusal = this.ask(
      Command.type,
      0,
      (writer) => {
        writer.attrText(Attr.typeName, type);
        writer.attrU8(Attr.family, family === 4 ? AF_INET : AF_INET6);
      },
      (message) => {
        found = readRevisions(message);
      },
    );
    if (refusal !== undefined) return refusal;
    const { needed, known } = REVISIONS[type];
    const revision = Math.min(found.max, known);
    if (revision < found.min)
      return { code: "type", text: `the kernel's ${type} is too new: revisions ${found.min} to ${found.max}, we know ${known}` };
    if (revision < needed) return { code: "type", text: `the kernel's ${type} is too old: revision ${found.max}, ${needed} is needed` };
    return revision;
  }

  /** Makes a set; one of the same name, type and parameters is as good as new (its elements stay). */
  create(spec: SetSpec): Refusal | undefined {
    const revision = this.revision(spec.type, spec.family);
    if (typeof revision !== "number") return revision;
    return this.command(Command.create, NLM_F_CREATE, spec.name, (writer) => {
      writer.attrText(Attr.typeName, spec.type);
      writer.attrU8(Attr.revision, revision);
      writer.attrU8(Attr.family, spec.family === 4 ? AF_INET : AF_INET6);
      const data = writer.open(Attr.data);
      if (spec.timeout !== undefined) writer.attrU32(Data.timeout | NET, Math.min(spec.timeout, TIMEOUT_SECONDS_MAX));
      const flags =
        (spec.counters === true ? FLAG_WITH_COUNTERS : 0) |
        (spec.comment === true ? FLAG_WITH_COMMENT : 0) |
        (spec.skbinfo === true ? FLAG_WITH_SKBINFO : 0);
      if (flags !== 0) writer.attrU32(Data.flags | NET, flags);
      if (spec.hashSize !== undefined) writer.attrU32(Data.hashSize | NET, spec.hashSize);
      if (spec.maxElements !== undefined) writer.attrU32(Data.maxElements | NET, spec.maxElements);
      writer.close(data);
    });
  }

  /** Removes a set; refused ("in-use") while a rule refers to it. One that is not there is "no-set". */
  destroy(name: string): Refusal | undefined {
    return this.command(Command.destroy, NLM_F_EXCL, name);
  }

  flush(name: string): Refusal | undefined {
    return this.command(Command.flush, 0, name);
  }

  rename(name: string, to: string): Refusal | undefined {
    return this.command(Command.rename, 0, name, undefined, to);
  }

  /** Exchanges the contents of two sets of one type; rules that refer to one see the other from now on, at once. */
  swap(name: string, other: string): Refusal | undefined {
    return this.command(Command.swap, 0, name, undefined, other);
  }

  /** All sets of this network namespace, without their elements. */
  list(): readonly SetHeader[] | Refusal {
    const { request } = this;
    const seq = sequences(1);
    request.reset();
    const start = request.begin(Command.list, NLM_F_REQUEST | NLM_F_DUMP, seq, AF_INET);
    request.attrU8(Attr.protocol, IPSET_PROTOCOL);
    request.attrU32(Attr.flags | NET, FLAG_LIST_HEADER);
    request.end(start);
    try {
      this.socket.send(request.bytes, request.at);
    } catch (error) {
      return noAnswer(codeOf(error));
    }
    const sets: SetHeader[] = [];
    const message = newMessage();
    // A step brings a set, the end, or an answer to somebody else: twice the sets is more than enough.
    for (let steps = 0; steps < SETS_MAX * 2; steps++) {
      const step = receiveDump(this.socket, seq, this.reply, message, (each) => {
        const header = each.type === Command.list ? readHeader(each) : undefined;
        if (header !== undefined && sets.length < SETS_MAX) sets.push(header);
      });
      if (step.state === "done") return sets;
      if (step.state === "failed") return step.error === 0 ? noAnswer(step.reason) : ipsetRefusal(step.error);
    }
    return noAnswer("the listing has no end");
  }

  private command(type: number, flags: number, name: string, attributes?: (writer: Writer) => void, name2?: string): Refusal | undefined {
    if (!validSetName(name) || (name2 !== undefined && !validSetName(name2)))
      return { code: "invalid", text: "not a set name (1 to 31 of A-Z a-z 0-9 _ . : -)" };
    return this.ask(type, flags, (writer) => {
      writer.attrText(Attr.setName, name);
      if (name2 !== undefined) writer.attrText(Attr.setName2, name2);
      attributes?.(writer);
    });
  }

  private ask(
    type: number,
    flags: number,
    attributes?: (writer: Writer) => void,
    onAnswer?: (message: Message) => void,
  ): Refusal | undefined {
    const { request } = this;
    const seq = sequences(1);
    request.reset();
    const start = request.begin(type, NLM_F_REQUEST | NLM_F_ACK | flags, seq, AF_INET);
    request.attrU8(Attr.protocol, IPSET_PROTOCOL);
    attributes?.(request);
    request.end(start);
    let error = 0;
    const reason = exchange(this.socket, request.bytes, request.at, seq, 1, this.reply, (message) => {
      if (message.type === NLMSG_ERROR) error = message.error;
      else if (message.type === type) onAnswer?.(message);
    });
    if (reason !== undefined) return noAnswer(reason);
    return error === 0 ? undefined : ipsetRefusal(error);
  }
}
