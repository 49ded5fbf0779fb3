import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { latin1, lineAt, mayStart, more, shown, sizeOf } from "./parts.ts";

/** Stratum and its relatives (mining pools): one JSON-RPC request a line, with a method that only they have. */
const LINE_MAX = 8192;
const METHODS = ["mining.subscribe", "mining.authorize", "mining.configure", "mining.extranonce.subscribe", "eth_submitLogin", "eth_login"];
const LATER_METHODS = ["eth_getWork", "eth_submitWork", "eth_submitHashrate", "mining.submit"];
const bad = { bad: "not Stratum" };

export const stratumInspector: Inspector = {
  application: "stratum",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (!mayStart(client, ['{"', '{ "'])) return bad;
    const line = lineAt(client, client.start, LINE_MAX);
    if (line === "long") return bad;
    if (line === undefined && !client.closed) return more(client, sizeOf(client) + 1);
    const request = parse(line === undefined ? latin1(client.bytes, client.start, client.end) : line.text);
    const method = request?.["method"];
    if (typeof method !== "string" || request === undefined) return bad;
    const mines = METHODS.includes(method) || LATER_METHODS.includes(method) || (method === "login" && isLogin(request["params"]));
    return mines ? { application: "stratum", serverName: undefined, fields: { method: shown(method) } } : bad;
  },
};

type Json = Readonly<Record<string, unknown>>;

function parse(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Json) : undefined;
  } catch {
    return undefined;
  }
}

/** CryptoNote's login: a wallet, a password, and the miner's name. */
function isLogin(params: unknown): boolean {
  if (typeof params !== "object" || params === null) return false;
  const { login, pass, agent } = params as Json;
  return typeof login === "string" && (typeof pass === "string" || typeof agent === "string");
}
