import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import { evidenceOf, more, viewField } from "./binary.ts";
import type { Inspector, NotIt, Reading, Run } from "./inspector.ts";
import { isSybaseLogin, readLogin7, readSybaseLogin } from "./tds-login.ts";
import { readCall } from "./tds-call.ts";
import { isTdsPacket, readTdsMessage, TDS_HEADER_BYTES } from "./tds.ts";
import { readUpgrade } from "./upgrade.ts";
import { sizeOf } from "./parts.ts";

/**
 * Microsoft SQL Server (MS-TDS; Sybase's TDS 5.0 and 4.2 are recognised). The client begins with PRELOGIN; when the server has
 * answered, either TLS follows, wrapped in packets of the same type (§2.2.6.5), or LOGIN7 in clear: only these two say who the client is. TDS 8.0
 * begins with TLS and is `tls` with ALPN `tds/8.0`.
 */
const Type = { batch: 1, sybaseLogin: 2, call: 3, login: 0x10, prelogin: 0x12 } as const;
const OPTIONS_MAX = 16;
const OPTION_HIGHEST = 0x0b;
const INSTANCE = 2;
const OPTIONS_END = 0xff;
const PRELOGIN_BYTES_MAX = 4096;
const LOGIN_BYTES_MAX = 131_072; // §2.2.6.4: a LOGIN7 must be shorter than 128K-1
const TLS_RECORD = 0x16;

export const mssqlInspector: Inspector = {
  application: "mssql",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    if (sizeOf(client) === 0) return more(client, TDS_HEADER_BYTES, notTds);
    const type = client.bytes[client.start] as number;
    if (!isTdsPacket(client, 0, type)) return notTds;
    switch (type) {
      case Type.prelogin:
        return readPrelogin(client);
      case Type.login:
        return readLogin(client, 0, "");
      case Type.sybaseLogin:
        return readOldLogin(client);
      case Type.batch:
      case Type.call:
        return readCall(client, type === Type.call);
      default:
        return notTds;
    }
  },
};

const notTds: NotIt = { bad: "no TDS message" };
const broken = (bad: string): NotIt => ({ bad, application: "mssql" });

function readPrelogin(client: Run): Reading {
  const message = readTdsMessage(client, 0, Type.prelogin);
  if (message === undefined || message.payload.length > PRELOGIN_BYTES_MAX) return notTds;
  // The first option is always VERSION.
  if (message.payload.length > 0 && message.payload[0] !== 0) return notTds;
  if (message.need > 0) return more(client, message.need, notTds);
  const instance = readOptions(message.payload);
  if (instance === undefined) return notTds;
  const known = evidenceOf("mssql", { service: instance });
  const at = message.end;
  if (sizeOf(client) <= at) {
    if (client.closed) return known;
    return { need: at + TDS_HEADER_BYTES + 1, of: "client", release: true, application: "mssql" };
  }
  if (client.bytes[client.start + at] === Type.login) return readLogin(client, at, instance);
  return readWrapped(client, at, instance);
}

/** §2.2.6.5: type, offset and length of each option, then what they point at. The instance's name, or undefined: malformed. */
function readOptions(payload: Uint8Array): string | undefined {
  const c = new Cursor(payload);
  let instance = "";
  for (let count = 0; count < OPTIONS_MAX; count++) {
    const type = c.u8();
    if (c.short) return undefined;
    if (type === OPTIONS_END) return count > 0 ? instance : undefined;
    const offset = c.u16();
    const length = c.u16();
    const isVersion = count === 0 && type === 0 && length === 6;
    if (c.short || type > OPTION_HIGHEST || offset + length > payload.length || isVersion !== (count === 0)) return undefined;
    if (type === INSTANCE && length > 1) instance = viewField(payload.subarray(offset, offset + length - 1));
  }
  return undefined;
}

/** TLS inside of packets; what stands behind its handshake is TLS without packets. */
function readWrapped(client: Run, at: number, instance: string): Reading {
  const message = readTdsMessage(client, at, Type.prelogin, true);
  if (message === undefined) return broken("neither TLS nor a login behind PRELOGIN");
  const { payload, need } = message;
  if (payload.length > 0 && payload[0] !== TLS_RECORD) return broken("no TLS behind PRELOGIN");
  const run: Run = { bytes: payload, start: 0, end: payload.length, ends: [], closed: need === 0 || client.closed };
  const found = readUpgrade(run, 0);
  if ("upgrade" in found) return { ...evidenceOf("mssql", { service: instance }), ...found };
  if ("bad" in found) return broken(found.bad);
  return { need, of: "client", application: "mssql" };
}

function readLogin(client: Run, at: number, instance: string): Reading {
  const not = at > 0 ? broken("a malformed LOGIN7") : notTds;
  const message = readTdsMessage(client, at, Type.login);
  if (message === undefined || message.payload.length > LOGIN_BYTES_MAX) return not;
  if (message.need > 0) return more(client, message.need, not);
  const login = readLogin7(message.payload);
  return login === undefined ? not : evidenceOf("mssql", { ...login.found, service: instance }, login.version);
}

function readOldLogin(client: Run): Reading {
  const message = readTdsMessage(client, 0, Type.sybaseLogin);
  if (message === undefined || message.payload.length > LOGIN_BYTES_MAX || !isSybaseLogin(message.payload)) return notTds;
  if (message.need > 0) return more(client, message.need, notTds);
  const login = readSybaseLogin(message.payload);
  return login === undefined ? notTds : evidenceOf("mssql", login.found, login.version);
}
