import { Cursor } from "../base/cursor.ts";
import { type Found, u16le, u32le, utf16Field, viewField } from "./binary.ts";
import { isPrintable } from "./parts.ts";

/** Who a client of TDS says that it is. */

export interface TdsLogin {
  readonly found: Found;
  readonly version: string;
}

const LOGIN7_BYTES_MIN = 86; // 94 since 7.2
/** Where offset and length of a text stand (MS-TDS §2.2.6.4). */
const Text = { user: 40, application: 48, server: 52, database: 68, sspi: 78 } as const;

/** LOGIN7: numbers, then offsets and lengths of UTF-16 texts that follow. Undefined: malformed. */
export function readLogin7(payload: Uint8Array): TdsLogin | undefined {
  const c = new Cursor(payload);
  const length = u32le(c);
  const version = u32le(c);
  if (length !== payload.length || length < LOGIN7_BYTES_MIN) return undefined;
  const minor = (version >>> 24) & 0x0f;
  if (version >>> 28 !== 7 || minor > 4) return undefined;
  const [user, application, host, database] = [Text.user, Text.application, Text.server, Text.database].map((at) => textAt(payload, at));
  if (user === undefined || application === undefined || host === undefined || database === undefined) return undefined;
  const sspi = u16le(new Cursor(payload, Text.sspi + 2));
  return { found: { user, application, host, database, mechanism: sspi > 0 ? "SSPI" : undefined }, version: `7.${minor}` };
}

function textAt(payload: Uint8Array, at: number): string | undefined {
  const c = new Cursor(payload, at);
  const offset = u16le(c);
  const end = offset + 2 * u16le(c);
  if (end === offset) return "";
  return offset < LOGIN7_BYTES_MIN || end > payload.length ? undefined : utf16Field(payload.subarray(offset, end));
}

/** TDS 4.2 and 5.0 (Sybase, "TDS 5.0 Functional Specification", LOGINREC): texts of 30 bytes with their length behind them. */
const NAME_BYTES = 30;
const Name = { host: 0, user: 31, password: 62, process: 93, application: 140, server: 171 } as const;
const VERSION_AT = 458;

/** As far as its bytes go, could this be a login record? Names are filled up with zeros. */
export function isSybaseLogin(payload: Uint8Array): boolean {
  for (const at of Object.values(Name)) {
    const length = payload[at + NAME_BYTES];
    if (length !== undefined && (length > NAME_BYTES || !isPrintable(payload.subarray(at, at + length)))) return false;
  }
  const major = payload[VERSION_AT];
  return major === undefined || major === 4 || major === 5;
}

export function readSybaseLogin(payload: Uint8Array): TdsLogin | undefined {
  if (payload.length < VERSION_AT + 4) return undefined;
  const name = (at: number): string => viewField(payload.subarray(at, at + (payload[at + NAME_BYTES] as number)));
  const found = { user: name(Name.user), application: name(Name.application), host: name(Name.server) };
  return { found, version: `${payload[VERSION_AT]}.${payload[VERSION_AT + 1]}` };
}
