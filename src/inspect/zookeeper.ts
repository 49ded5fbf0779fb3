import { Protocol } from "../model/packet.ts";
import { bytesLike, cursorAt, evidenceOf, more, viewField } from "./binary.ts";
import type { FirstBytes, Inspector, NotIt, Reading, Run } from "./inspector.ts";
import { startsLike } from "./text.ts";
import { sizeOf, isPrintable } from "./parts.ts";

/**
 * ZooKeeper (zookeeper.jute, "ConnectRequest"; Administrator's Guide, "The Four Letter Words"): a client begins with its session, a person
 * or a probe with a word. Between servers (ZAB, `Learner.registerWithLeader`) a FOLLOWERINFO or OBSERVERINFO begins. The user comes later.
 */
const CONNECT_BYTES = 28; // without length, password, and whether it is read-only
const PASSWORD_BYTES = [0, 16];
const TIMEOUT_MS_MAX = 24 * 3600 * 1000;
const LEARNER_BYTES_MIN = 16;
const LEARNER_TYPES: Readonly<Record<number, string>> = { 11: "FOLLOWERINFO", 16: "OBSERVERINFO" };
const LEARNER_PROTOCOL = [0, 1, 0, 0];
const ELECTION = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
const ADDRESSES_BYTES_MAX = 512;

const WORDS: readonly string[] =
  "conf cons crst dirs dump envi gtmk hash icfg isro kill lsnp mntr orst ruok srst srvr stat stmk wchc wchp wchs".split(" ");
const WORD_BYTES = 4;
const REFUSED = " is not executed because it is not in the whitelist.";
/** How the answers to them begin. */
const REPLIES: readonly string[] = [
  "imok",
  "Zookeeper version: ",
  "zk_",
  "clientPort=",
  "Environment:",
  "This ZooKeeper instance is not currently serving requests",
  "rw",
  "ro",
];

const not: NotIt = { bad: "no ZooKeeper message" };

export const zookeeperInspector: Inspector = {
  application: "zookeeper",
  transports: [Protocol.TCP],
  opens: "client",
  read(first): Reading {
    const { client } = first;
    if (sizeOf(client) > 0 && client.bytes[client.start] === ELECTION[0]) return readElection(client);
    if (!bytesLike(client, 0, [0])) return readWord(first);
    if (!bytesLike(client, 0, [0, 0, 0])) return not;
    if (sizeOf(client) < 8) return more(client, 8, not);
    const c = cursorAt(client, 0);
    const length = c.u32();
    const second = c.u32();
    if (second === 0 && length >= CONNECT_BYTES && length <= CONNECT_BYTES + 17) return readConnect(client, length);
    return LEARNER_TYPES[length] === undefined ? not : readLearner(client, length);
  },
};

/** Protocol version 0, the last zxid, a timeout, the session, a password; since 3.4 whether a read-only server will do. */
function readConnect(client: Run, length: number): Reading {
  const end = 4 + length;
  const c = cursorAt(client, 16);
  const timeout = c.u32();
  if (!c.short && (timeout === 0 || timeout > TIMEOUT_MS_MAX)) return not;
  c.skip(8);
  const password = c.u32();
  const rest = length - CONNECT_BYTES - password;
  if (!c.short && (!PASSWORD_BYTES.includes(password) || (rest !== 0 && rest !== 1))) return not;
  if (sizeOf(client) < end) return more(client, end, not);
  const readOnly = rest === 1 ? client.bytes[client.start + end - 1] : 0;
  return readOnly === 0 || readOnly === 1 ? evidenceOf("zookeeper", { method: "connect" }) : not;
}

/** A type, a zxid, and the length of what the learner says: its id, the protocol version 1.0, its configuration. */
function readLearner(client: Run, type: number): Reading {
  const c = cursorAt(client, 12);
  const length = c.u32();
  if (!c.short && (length < LEARNER_BYTES_MIN - 4 || length > LEARNER_BYTES_MIN + 4)) return not;
  if (!bytesLike(client, 24, LEARNER_PROTOCOL)) return not;
  if (sizeOf(client) < 28) return more(client, 28, not);
  return evidenceOf("zookeeper", { method: LEARNER_TYPES[type] });
}

/** Between servers, leader election (`QuorumCnxManager.InitialMessage`): -65536 or -65535, who it is, and its addresses as a text. */
function readElection(client: Run): Reading {
  if (!bytesLike(client, 0, ELECTION)) return not;
  if (sizeOf(client) > 7 && (client.bytes[client.start + 7] as number) > 1) return not;
  const c = cursorAt(client, 16);
  const length = c.u32();
  if (c.short) return more(client, 20, not);
  if (length === 0 || length > ADDRESSES_BYTES_MAX) return not;
  if (sizeOf(client) < 20 + length) return more(client, 20 + length, not);
  const addresses = c.view(length);
  return isPrintable(addresses) && addresses.includes(0x3a) ? evidenceOf("zookeeper", { method: "election" }) : not;
}

/** A word alone is the begin of others' lines (`stats`): it needs the end of its line, or the server's answer. */
function readWord({ client, server }: FirstBytes): Reading {
  const have = sizeOf(client);
  const word = WORDS.find((one) => startsLike(client, one));
  if (word === undefined) return not;
  if (have < WORD_BYTES) return more(client, WORD_BYTES, not);
  const found = evidenceOf("zookeeper", { method: viewField(client.bytes.subarray(client.start, client.start + WORD_BYTES)) });
  const possible = [`${word}${REFUSED}`, ...REPLIES].filter((reply) => startsLike(server, reply));
  if (possible.some((reply) => sizeOf(server) >= reply.length)) return found;
  if (possible.length === 0) return not;
  if (have > WORD_BYTES) {
    if (client.bytes[client.start + WORD_BYTES] === 0x0a) return found;
    if (!bytesLike(client, WORD_BYTES, [0x0d, 0x0a])) return not;
    return have > WORD_BYTES + 1 ? found : more(client, WORD_BYTES + 2, not);
  }
  if (!server.closed) return { need: sizeOf(server) + 1, of: "server", release: true };
  return client.closed ? found : not;
}
