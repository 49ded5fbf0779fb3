import type { Family } from "../base/address.ts";
import { Attr, Data, FLAG_WITH_COMMENT, FLAG_WITH_COUNTERS, FLAG_WITH_FORCEADD, FLAG_WITH_SKBINFO } from "./ipset-wire.ts";
import { AF_INET6 } from "../base/netlink.ts";
import { Attributes, type Message } from "../base/netlink-read.ts";

/** A set as LIST describes it. */
export interface SetHeader {
  readonly name: string;
  readonly type: string;
  readonly family: Family;
  readonly revision: number;
  readonly hashSize: number;
  readonly maxElements: number;
  /** The default, seconds; undefined: the set has no timeouts. */
  readonly timeout: number | undefined;
  readonly counters: boolean;
  readonly comment: boolean;
  readonly skbinfo: boolean;
  readonly forceAdd: boolean;
  /** Rules and sets that refer to it. */
  readonly references: number;
  readonly elements: number;
  /** Bytes. */
  readonly memory: number;
}

// Reading is synchronous and calls nobody, so the walkers can be shared.
const top = new Attributes();
const data = new Attributes();

/** The set that a LIST message describes; undefined when the message only goes on with the elements of the one before. */
export function readHeader(message: Message): SetHeader | undefined {
  let name = "";
  let type = "";
  let family: Family = 4;
  let revision = 0;
  let described = false;
  let hashSize = 0;
  let maxElements = 0;
  let timeout: number | undefined;
  let flags = 0;
  let references = 0;
  let elements = 0;
  let memory = 0;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    if (top.type === Attr.setName) name = top.text();
    else if (top.type === Attr.typeName) type = top.text();
    else if (top.type === Attr.family) family = top.u8() === AF_INET6 ? 6 : 4;
    else if (top.type === Attr.revision) revision = top.u8();
    else if (top.type === Attr.data) {
      described = true;
      data.into(top);
      while (data.next()) {
        if (data.type === Data.hashSize) hashSize = data.u32();
        else if (data.type === Data.maxElements) maxElements = data.u32();
        else if (data.type === Data.timeout) timeout = data.u32();
        else if (data.type === Data.flags) flags = data.u32();
        else if (data.type === Data.references) references = data.u32();
        else if (data.type === Data.elements) elements = data.u32();
        else if (data.type === Data.memory) memory = data.u32();
      }
    }
  }
  if (!described || name === "") return undefined;
  return {
    name,
    type,
    family,
    revision,
    hashSize,
    maxElements,
    timeout,
    counters: (flags & FLAG_WITH_COUNTERS) !== 0,
    comment: (flags & FLAG_WITH_COMMENT) !== 0,
    skbinfo: (flags & FLAG_WITH_SKBINFO) !== 0,
    forceAdd: (flags & FLAG_WITH_FORCEADD) !== 0,
    references,
    elements,
    memory,
  };
}

/** The revisions a TYPE answer names. */
export function readRevisions(message: Message): { readonly min: number; readonly max: number } {
  let min = 0;
  let max = 0;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    if (top.type === Attr.revision) max = top.u8();
    else if (top.type === Attr.revisionMin) min = top.u8();
  }
  return { min, max };
}

/** The protocol versions a PROTOCOL answer names. */
export function readProtocol(message: Message): { readonly min: number; readonly max: number } {
  let max = 0;
  let min = 0;
  top.reset(message.bytes, message.payload, message.end);
  while (top.next()) {
    if (top.type === Attr.protocol) max = top.u8();
    else if (top.type === Attr.protocolMin) min = top.u8();
  }
  return { min: min === 0 ? max : min, max };
}
