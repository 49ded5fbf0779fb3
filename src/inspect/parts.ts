import { FIELD_CHARS_MAX } from "../model/verdict.ts";
import type { FirstBytes, NeedOf, NotIt, Run } from "./inspector.ts";
import { field, startsLike, startsLikeAnyCase } from "./text.ts";

/** What many inspectors need: lines, words, datagrams, and asking for more. */

export function sizeOf(run: Run): number {
  return run.end - run.start;
}

/** Asks for `need` client bytes in all; where no more will come it is not this protocol, or a broken one. */
export function more(run: Run, need: number, application?: string): NeedOf | NotIt {
  if (!run.closed) return { need, of: "client" };
  const bad = "ends too early";
  return application === undefined ? { bad } : { bad, application };
}

/**
 * Over UDP: the client's first datagram; of a recording that has only the server's half, the server's. With the one
 * datagram that the kernel hands over, `ends` is empty.
 */
export function firstDatagram({ client, server }: FirstBytes): Run | NeedOf | NotIt {
  const sent = withBytes(client);
  if (sent !== undefined) return sent;
  if (!client.closed) return { need: sizeOf(client) + 1, of: "client" };
  return withBytes(server) ?? { bad: "no datagram" };
}

/** The first datagram that is not empty. */
function withBytes(run: Run): Run | undefined {
  for (let i = 0; i < Math.max(run.ends.length, 1); i++) {
    const found = datagram(run, i);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A datagram as a Run of its own; undefined when it is not there, or empty. */
export function datagram(run: Run, index: number): Run | undefined {
  const start = index === 0 ? run.start : run.ends[index - 1];
  const end = run.ends[index] ?? (index === 0 && run.ends.length === 0 ? run.end : undefined);
  if (start === undefined || end === undefined || end <= start) return undefined;
  return { bytes: run.bytes, start, end, ends: [], closed: true };
}

/** No other octet than printable ASCII; of bytes[start..end), where they are given. */
export function isPrintable(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  for (let i = start; i < end; i++) if ((bytes[i] as number) < 0x20 || (bytes[i] as number) > 0x7e) return false;
  return true;
}

/** bytes[start..end) is printable ASCII, and not empty. */
export function printable(bytes: Uint8Array, start: number, end: number): boolean {
  return end > start && isPrintable(bytes, start, end);
}

/** One char an octet. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, Math.max(0, end - start)).toString("latin1");
}

/** A line without its CR LF (or LF alone), and where the next one starts (an index into `bytes`). */
export interface Line {
  readonly text: string;
  readonly next: number;
}

/** The line at `at`; undefined when its end is not there; "long" when it has more than `limit` octets with its end. */
export function lineAt(run: Run, at: number, limit: number): Line | "long" | undefined {
  const found = run.bytes.subarray(at, Math.min(run.end, at + limit)).indexOf(0x0a);
  if (found < 0) return run.end - at >= limit ? "long" : undefined;
  const end = found > 0 && run.bytes[at + found - 1] === 0x0d ? at + found - 1 : at + found;
  return { text: latin1(run.bytes, at, end), next: at + found + 1 };
}

/** Digits and dots, at least one of them: a version, an object identifier. */
export function isNumber(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (!"0123456789.".includes(text[i] as string)) return false;
  return text.length > 0;
}

/** Can the run begin with one of these (ASCII), as far as its bytes go? */
export function mayStart(run: Run, texts: readonly string[]): boolean {
  return texts.some((text) => startsLike(run, text));
}

export function mayStartAnyCase(run: Run, texts: readonly string[]): boolean {
  return texts.some((text) => startsLikeAnyCase(run, text));
}

/** The first `count` blank-separated words of a line; the last one is the rest of it. */
export function words(text: string, count: number): string[] {
  const found: string[] = [];
  let at = 0;
  while (found.length < count - 1) {
    const blank = text.indexOf(" ", at);
    if (blank < 0) break;
    found.push(text.slice(at, blank));
    at = blank + 1;
  }
  found.push(text.slice(at));
  return found;
}

/** Text of the wire (a char an octet) as an evidence field. */
export function shown(text: string): string {
  const bytes = Buffer.from(text.slice(0, FIELD_CHARS_MAX), "latin1");
  return field(bytes, 0, bytes.length);
}
