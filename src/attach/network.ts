import type { NetlinkSocket } from "../base/addon.ts";
import type { Ip } from "../base/address.ts";
import { sequences, Writer } from "../base/netlink.ts";
import { codeOf, exchange, receiveDump, REPLY_BYTES } from "../base/netlink-exchange.ts";
import { type Message, newMessage } from "../base/netlink-read.ts";
import { type Link, LinkTable } from "./link.ts";
import {
  askLinks,
  askNeighbours,
  askRoute,
  askSpace,
  type Neighbour,
  numberSpace,
  readLink,
  readNeighbour,
  readRoute,
  readSpace,
} from "./rtnetlink.ts";

/** Interfaces of a node that are looked at: 250 pods have 250; the rest is for other containers. */
const LINKS_MAX = 16_384;
/** Interfaces of one pod that are looked at; whoever has NET_ADMIN in a pod can make as many as it likes. */
const INSIDE_MAX = 256;
/** Neighbours: net.ipv4.neigh.default.gc_thresh3 is 1024, large nodes raise it. */
const NEIGHBOURS_MAX = 65_536;
/** NLM_F_DUMP_INTR: the table changed while it was read, something may be missing. */
const INTERRUPTED = 0x10;
const TRIES_MAX = 3;

export interface Failed {
  readonly bad: string;
}

/** What the locator asks the kernel. */
export interface Network {
  links(): LinkTable | Failed;
  /** The interfaces inside a namespace of this number. */
  inside(space: number): readonly Link[] | Failed;
  /** The number of a process's network namespace; undefined: none of our interfaces leads there, or no such process. */
  spaceOf(pid: number): number | undefined;
  /** The same, and a namespace without a number gets one. */
  numbered(pid: number): number | undefined;
  /** The index of the interface by which packets to this address leave. */
  routeTo(address: Ip): number | undefined;
  neighbours(): readonly Neighbour[] | Failed;
}

/**
 * The network namespace of this process, over a NETLINK_ROUTE socket. Nothing enters a pod's namespace, and nothing that a
 * pod can mount or write is read: the kernel says which of the node's own interfaces has its other end where.
 */
export class NodeNetwork implements Network {
  private readonly socket: NetlinkSocket;
  private readonly request = new Writer(256);
  private readonly reply = Buffer.alloc(REPLY_BYTES);

  constructor(socket: NetlinkSocket) {
    this.socket = socket;
  }

  links(): LinkTable | Failed {
    const links = this.dump((seq) => askLinks(this.request, seq, undefined), readLink, LINKS_MAX);
    return "bad" in links ? links : new LinkTable(links);
  }

  inside(space: number): readonly Link[] | Failed {
    return this.dump((seq) => askLinks(this.request, seq, space), readLink, INSIDE_MAX);
  }

  spaceOf(pid: number): number | undefined {
    return this.ask((seq) => askSpace(this.request, seq, pid), readSpace);
  }

  numbered(pid: number): number | undefined {
    this.ask((seq) => numberSpace(this.request, seq, pid), readSpace);
    return this.spaceOf(pid);
  }

  routeTo(address: Ip): number | undefined {
    return this.ask((seq) => askRoute(this.request, seq, address), readRoute);
  }

  neighbours(): readonly Neighbour[] | Failed {
    return this.dump((seq) => askNeighbours(this.request, seq), readNeighbour, NEIGHBOURS_MAX);
  }

  private ask<T>(write: (seq: number) => void, read: (message: Message) => T | undefined): T | undefined {
    const seq = sequences(1);
    this.request.reset();
    write(seq);
    let found: T | undefined;
    exchange(this.socket, this.request.bytes, this.request.at, seq, 1, this.reply, (message) => {
      found ??= read(message);
    });
    return found;
  }

  private dump<T>(write: (seq: number) => void, read: (message: Message) => T | undefined, max: number): T[] | Failed {
    for (let tries = 1; ; tries++) {
      const seq = sequences(1);
      const found: T[] = [];
      let interrupted = false;
      const message = newMessage();
      this.request.reset();
      write(seq);
      try {
        this.socket.send(this.request.bytes, this.request.at);
      } catch (error) {
        return { bad: codeOf(error) };
      }
      let step: ReturnType<typeof receiveDump>;
      do {
        step = receiveDump(this.socket, seq, this.reply, message, (one) => {
          interrupted ||= (one.bytes.readUInt16LE(one.start + 6) & INTERRUPTED) !== 0;
          const value = found.length < max ? read(one) : undefined;
          if (value !== undefined) found.push(value);
        });
      } while (step.state === "more");
      if (step.state === "failed") return { bad: step.reason };
      if (!interrupted || tries === TRIES_MAX) return found;
    }
  }
}
