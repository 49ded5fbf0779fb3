import type { NetlinkSocket } from "../base/addon.ts";
import { Attr, Command, IPSET_PROTOCOL, validSetName } from "./ipset-wire.ts";
import { type DumpedElement, newDumpedElement, readElements } from "./ipset-read.ts";
import { AF_INET, NLM_F_DUMP, NLM_F_REQUEST, sequences, Writer } from "../base/netlink.ts";
import { codeOf, receiveDump, REPLY_BYTES } from "../base/netlink-exchange.ts";
import { newMessage } from "../base/netlink-read.ts";
import { ipsetRefusal, noAnswer, type Refusal } from "./refusal.ts";

/** `more`: call `next` again. The others end the dump. */
export type DumpState = "more" | "done" | "failed";

/**
 * Reads the elements of a set a piece at a time (one receive, some hundred elements), so that the caller can do other
 * work in between. The socket is the dump's own until it has ended. Elements that come and go meanwhile may be seen or
 * not; those that stay are seen (twice at worst, when the kernel resizes the set).
 */
export class IpsetDump {
  /** Why the dump failed. */
  refusal: Refusal | undefined;
  /** Elements handed out. */
  count = 0;
  private readonly socket: NetlinkSocket;
  private readonly request = new Writer(128);
  private readonly reply = Buffer.alloc(REPLY_BYTES);
  private readonly message = newMessage();
  private readonly element = newDumpedElement();
  private seq = 0;
  private state: DumpState = "done";

  constructor(socket: NetlinkSocket) {
    this.socket = socket;
  }

  /** Asks for the elements of `set`. False when a dump is under way, or when the request cannot be sent (see `refusal`). */
  start(set: string): boolean {
    if (this.state === "more") return false;
    this.refusal = undefined;
    this.count = 0;
    if (!validSetName(set)) return this.fail({ code: "invalid", text: "not a set name" });
    this.seq = sequences(1);
    const { request } = this;
    request.reset();
    const message = request.begin(Command.list, NLM_F_REQUEST | NLM_F_DUMP, this.seq, AF_INET);
    request.attrU8(Attr.protocol, IPSET_PROTOCOL);
    request.attrText(Attr.setName, set);
    request.end(message);
    try {
      this.socket.send(request.bytes, request.at);
    } catch (error) {
      return this.fail(noAnswer(codeOf(error)));
    }
    this.state = "more";
    return true;
  }

  private fail(refusal: Refusal): false {
    this.refusal = refusal;
    this.state = "failed";
    return false;
  }

  /** One receive. `onElement` gets one and the same object each time; it must not use this dump's socket. */
  next(onElement: (element: DumpedElement) => void): DumpState {
    if (this.state !== "more") return this.state;
    const step = receiveDump(this.socket, this.seq, this.reply, this.message, (message) => {
      if (message.type === Command.list) this.count += readElements(message, this.element, onElement);
    });
    if (step.state === "failed") this.refusal = step.error === 0 ? noAnswer(step.reason) : ipsetRefusal(step.error);
    this.state = step.state;
    return step.state;
  }
}
