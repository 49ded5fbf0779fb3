import type { NetlinkSocket } from "./addon.ts";
import { messageOf } from "./fault.ts";
import { NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN } from "./netlink.ts";
import { type Message, newMessage, readMessage } from "./netlink-read.ts";

/** Bytes of one answer: a dump block is at most 32 KB (net/netlink/af_netlink.c), an error repeats its request. */
export const REPLY_BYTES = 128 * 1024;
/** Bytes of requests in one send; below half the default socket buffer (net.core.wmem_default, 208 KB). */
export const SEND_BYTES_MAX = 48 * 1024;
/** Messages in one send: each answer costs up to about 1 KB of the receive buffer, or its request's size. */
export const SEND_MESSAGES_MAX = 64;
/** Reads that bring nothing of ours before we give up on an answer. */
const STRAY_READS_MAX = 16;

/**
 * Sends `acks` messages, numbered `first`, `first` + 1, ..., and calls `onMessage` for each message of the answer that
 * belongs to them. Answers of earlier exchanges that were given up are skipped. Returns how many NLMSG_ERROR came, and
 * the reason why fewer came than were asked for. Never throws.
 */
export function exchange(
  socket: NetlinkSocket,
  request: Uint8Array,
  length: number,
  first: number,
  acks: number,
  reply: Buffer,
  onMessage: (message: Message) => void,
): string | undefined {
  const message = newMessage();
  let left = acks;
  const take = (bytes: number): boolean => {
    let ours = false;
    for (let at = 0; (at = readMessage(message, reply, at, bytes)) >= 0; ) {
      if (message.seq < first || message.seq >= first + acks) continue;
      ours = true;
      if (message.type === NLMSG_ERROR) left--;
      onMessage(message);
    }
    return ours;
  };
  try {
    take(socket.transact(request, length, reply, acks));
    for (let stray = 0; left > 0 && stray < STRAY_READS_MAX; ) if (!take(socket.receive(reply))) stray++;
    return left > 0 ? "no answer from the kernel" : undefined;
  } catch (error) {
    return codeOf(error);
  }
}

/** What one receive of a dump brought. */
export type DumpStep = { readonly state: "more" | "done" } | { readonly state: "failed"; readonly error: number; readonly reason: string };

const MORE: DumpStep = { state: "more" };
const DONE: DumpStep = { state: "done" };

/** Reads one receive of the dump numbered `seq` and calls `onMessage` for each of its messages. Never throws. */
export function receiveDump(
  socket: NetlinkSocket,
  seq: number,
  reply: Buffer,
  message: Message,
  onMessage: (message: Message) => void,
): DumpStep {
  let bytes: number;
  try {
    bytes = socket.receive(reply);
  } catch (error) {
    return { state: "failed", error: 0, reason: codeOf(error) };
  }
  for (let at = 0; (at = readMessage(message, reply, at, bytes)) >= 0; ) {
    if (message.seq !== seq || message.type === NLMSG_NOOP) continue;
    if (message.type === NLMSG_OVERRUN) return { state: "failed", error: 0, reason: "ENOBUFS" };
    if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
      return message.error === 0 ? DONE : { state: "failed", error: message.error, reason: `errno ${message.error}` };
    }
    onMessage(message);
  }
  return MORE;
}

/** `code` of a system call's Error, or its message. */
export function codeOf(error: unknown): string {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  return typeof code === "string" ? code : messageOf(error);
}
