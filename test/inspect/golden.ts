import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { Protocol } from "../../src/model/packet.ts";
import type { Direction, FirstBytes, Reading, Run } from "../../src/inspect/inspector.ts";

/**
 * Golden cases of one protocol as text, `golden/NAME.txt`:
 *
 *     case: what it is
 *     udp                          (TCP is the default)
 *     c 00000008 04d2162f          what the client sends: hex, "text" with \r \n \t \0 \\ \" \xHH, HH*COUNT; parts joined
 *     s 53                         what the server sends after that; lines in the order of time
 *     closed                       no more bytes will come in either direction
 *     = application=postgresql user=app serverName=db.example.com     the evidence, every key that is not undefined
 *     = bad                        or: refused; `= bad application=tls` when it is that protocol but broken
 *     = need client                or: more is wanted, though all of this is there (`need server`; `release` behind it)
 *
 * Keys: application, serverName, upgrade, version, alpn (comma separated), ja4, ech=true, evasion (any text), and the names of
 * FIELDS (the field `application` is written `application_field`). Values with blanks are quoted.
 */
export interface GoldenCase {
  readonly name: string;
  readonly transport: number;
  readonly sent: readonly { readonly from: Direction; readonly bytes: Uint8Array }[];
  readonly closed: boolean;
  readonly expected: Readonly<Record<string, string>>;
}

export function readGolden(file: string): GoldenCase[] {
  const cases: GoldenCase[] = [];
  let name = "";
  let transport: number = Protocol.TCP;
  let sent: { from: Direction; bytes: Uint8Array }[] = [];
  let closed = false;
  const text = readFileSync(new URL(`../../../test/inspect/golden/${file}`, import.meta.url), "utf8");
  for (const [at, line] of text.split("\n").entries()) {
    const where = `${file}:${at + 1}`;
    const rest = line.slice(2).trim();
    if (line.trim() === "" || line.startsWith("#")) continue;
    if (line.startsWith("case:")) {
      name = line.slice(5).trim();
      transport = Protocol.TCP;
      sent = [];
      closed = false;
    } else if (line === "udp") transport = Protocol.UDP;
    else if (line === "closed") closed = true;
    else if (line.startsWith("c ")) sent.push({ from: "client", bytes: bytesOf(rest, where) });
    else if (line.startsWith("s ")) sent.push({ from: "server", bytes: bytesOf(rest, where) });
    else if (line.startsWith("= ")) cases.push({ name, transport, sent, closed, expected: expectation(rest, where) });
    else throw new Error(`${where}: what is ${line}?`);
  }
  return cases;
}

const ESCAPES: Readonly<Record<string, number>> = { r: 13, n: 10, t: 9, "0": 0, "\\": 92, '"': 34 };

function bytesOf(text: string, where: string): Uint8Array {
  const out: number[] = [];
  for (let i = 0; i < text.length; ) {
    if (text[i] === " ") i++;
    else if (text[i] === '"') {
      for (i++; text[i] !== '"'; i++) {
        if (i >= text.length) throw new Error(`${where}: no closing quote`);
        if (text[i] !== "\\") out.push(text.charCodeAt(i));
        else if (text[++i] === "x") {
          out.push(Number.parseInt(text.slice(i + 1, i + 3), 16));
          i += 2;
        } else out.push(ESCAPES[text[i] as string] ?? Number.NaN);
      }
      i++;
    } else {
      const found = /^([0-9a-f]{2})\*(\d+)|^((?:[0-9a-f]{2})+)/.exec(text.slice(i));
      if (found === null) throw new Error(`${where}: neither hex nor "text": ${text.slice(i)}`);
      i += found[0].length;
      if (found[3] !== undefined) out.push(...Buffer.from(found[3], "hex"));
      else for (let k = Number(found[2]); k > 0; k--) out.push(Number.parseInt(found[1] as string, 16));
    }
  }
  if (out.some((byte) => Number.isNaN(byte))) throw new Error(`${where}: an unknown escape`);
  return Uint8Array.from(out);
}

function expectation(text: string, where: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const [, key, quoted, plain] of text.matchAll(/([A-Za-z0-9_]+)(?:=(?:"([^"]*)"|(\S*)))?/g))
    found[key as string] = quoted ?? plain ?? "";
  if (Object.keys(found).length === 0) throw new Error(`${where}: nothing is expected`);
  return found;
}

/** A reading in the words of a golden file. */
export function inWords(reading: Reading): Record<string, string> {
  if ("need" in reading) return { need: "", [reading.of]: "", ...(reading.release === true ? { release: "" } : {}) };
  if ("bad" in reading) return { bad: "", ...(reading.application === undefined ? {} : { application: reading.application }) };
  const { application, serverName, alpn, ja4, ech, upgrade, version, fields, evasion } = reading;
  const { application: product, ...others } = fields ?? {};
  const all = {
    application,
    serverName,
    upgrade,
    version,
    alpn: alpn === undefined || alpn.length === 0 ? undefined : alpn.join(","),
    ja4,
    ech: ech === true ? "true" : undefined,
    evasion: evasion === undefined ? undefined : "",
    application_field: product,
    ...others,
  };
  return Object.fromEntries(Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined));
}

/** FirstBytes with the first `count` bytes of a case in the order of time; over UDP whole datagrams only. */
function first(one: GoldenCase, count: number, closed: boolean): FirstBytes {
  const collect = (of: Direction): Run => {
    const parts: Uint8Array[] = [];
    const ends: number[] = [];
    let left = count;
    for (const { from, bytes } of one.sent) {
      const part = bytes.subarray(0, Math.min(left, bytes.length));
      left -= part.length;
      if (from !== of || (one.transport === Protocol.UDP ? part.length < bytes.length : part.length === 0)) continue;
      parts.push(part);
      ends.push((ends[ends.length - 1] ?? 0) + part.length);
    }
    // In the middle of other bytes, as on the wire: nothing outside start..end may count.
    const joined = Buffer.concat([Buffer.from("\xffGET \x16\x03", "latin1"), ...parts, Buffer.from("\r\n\0\xff{", "latin1")]);
    const start = 7;
    return {
      bytes: joined,
      start,
      end: joined.length - 5,
      ends: one.transport === Protocol.UDP ? ends.map((end) => end + start) : [],
      closed,
    };
  };
  return { transport: one.transport, client: collect("client"), server: collect("server") };
}

/**
 * Replays a case at every split: with each prefix of what was sent the answer is either the final one or a `need` for more
 * bytes than there are. `server` bytes that come after the answer is certain do not change it.
 */
export function replayGolden(one: GoldenCase, read: (first: FirstBytes) => Reading): void {
  const total = one.sent.reduce((sum, { bytes }) => sum + bytes.length, 0);
  let settled: number | undefined;
  const { name, expected } = one;
  for (let count = 0; count < total; count++) {
    const some = first(one, count, false);
    const reading = read(some);
    const at = `${name}: with ${count} of ${total} bytes`;
    if ("need" in reading) {
      const run = some[reading.of];
      assert.ok(reading.need > run.end - run.start, `${at}: needs ${reading.need}, and has ${run.end - run.start}`);
      assert.equal(settled, undefined, `${at}: was certain before`);
    } else {
      settled ??= count;
      if (!one.closed) assert.deepEqual(inWords(reading), expected, at);
      else assert.ok("bad" in reading ? "bad" in expected : !("bad" in expected), at);
    }
    const short = first(one, count, true);
    assert.ok(!("need" in read(short)), `${at} and no more to come: still needs more`);
  }
  assert.deepEqual(inWords(read(first(one, total, one.closed))), expected, `${name}: with everything`);
}
