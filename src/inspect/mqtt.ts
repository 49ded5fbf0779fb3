import { Cursor } from "../base/cursor.ts";
import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading } from "./inspector.ts";
import { more, sizeOf } from "./parts.ts";
import { field } from "./text.ts";

/**
 * MQTT's CONNECT (3.1; 3.1.1 §3.1; 5.0 §3.1): `10`, remaining length, protocol name and level, flags, keep alive, properties
 * (5.0), client id, will, user name, password. Read whole: it must end where its remaining length says.
 */
const REMAINING_MAX = 2 ** 18; // client id, will topic and message, user name, password: 64 KB each at most
const LENGTH_OCTETS_MAX = 4; // §2.2.3

/** Level, by version; the highest bit says that a bridge connects (Mosquitto, IBM). */
const VERSIONS: Readonly<Record<number, string>> = { 3: "3.1", 4: "3.1.1", 5: "5" };
const BRIDGE = 0x80;
const Flag = { reserved: 1, will: 4, willQos: 0x18, willRetain: 0x20, password: 0x40, user: 0x80 } as const;

const bad = { bad: "not an MQTT CONNECT" };
const broken = (why: string): Reading => ({ bad: why, application: "mqtt" });

export const mqttInspector: Inspector = {
  application: "mqtt",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }): Reading {
    const { bytes, start } = client;
    const c = new Cursor(bytes, start, client.end);
    const have = sizeOf(client);
    if (have > 0 && c.u8() !== 0x10) return bad;
    let remaining = 0;
    for (let i = 0; ; i++) {
      if (i === LENGTH_OCTETS_MAX) return bad;
      const octet = c.u8();
      if (c.short || have === 0) return more(client, have + 1);
      remaining += (octet & 127) * 128 ** i;
      if (octet < 128) break;
    }
    const whole = c.at - start + remaining;
    if (remaining < 12 || remaining > REMAINING_MAX) return bad;
    // The name is looked at as soon as it comes: anything may begin with 10.
    const name = [0, 4, 0x4d, 0x51, 0x54, 0x54];
    const oldName = [0, 6, 0x4d, 0x51, 0x49, 0x73, 0x64, 0x70];
    const like = (octets: readonly number[]): boolean => octets.every((octet, i) => c.at + i >= c.end || bytes[c.at + i] === octet);
    if (!like(name) && !like(oldName)) return bad;
    if (have < whole) return more(client, whole, c.left > 6 ? "mqtt" : undefined);
    return connect(new Cursor(bytes, c.at, start + whole));
  },
};

/** Everything behind the fixed header. */
function connect(c: Cursor): Reading {
  const old = c.u16() === 6;
  c.skip(old ? 6 : 4);
  const level = c.u8() & ~BRIDGE;
  const version = VERSIONS[level];
  if (version === undefined || old !== (level === 3)) return broken("no MQTT protocol level");
  const flags = c.u8();
  const will = (flags & Flag.will) !== 0;
  if ((flags & Flag.reserved) !== 0 || (flags & Flag.willQos) === Flag.willQos) return broken("reserved MQTT flags");
  if (!will && (flags & (Flag.willQos | Flag.willRetain)) !== 0) return broken("MQTT will flags without a will");
  c.skip(2); // keep alive
  if (level === 5 && !skipProperties(c)) return broken("malformed MQTT properties");
  const clientId = text(c);
  if (will) {
    if (level === 5 && !skipProperties(c)) return broken("malformed MQTT properties");
    text(c);
    c.skip(c.u16());
  }
  const user = (flags & Flag.user) !== 0 ? text(c) : undefined;
  if ((flags & Flag.password) !== 0) c.skip(c.u16());
  if (c.short || c.left !== 0) return broken("an MQTT CONNECT that its remaining length does not fit");
  return {
    application: "mqtt",
    serverName: undefined,
    version,
    fields: { ...(clientId === "" ? {} : { clientId }), ...(user === undefined ? {} : { user }) },
  };
}

function text(c: Cursor): string {
  const view = c.view(c.u16());
  return field(view, 0, view.length);
}

/** A variable byte integer and as many octets (5.0 §2.2.2). */
function skipProperties(c: Cursor): boolean {
  let length = 0;
  for (let i = 0; i < LENGTH_OCTETS_MAX; i++) {
    const octet = c.u8();
    length += (octet & 127) * 128 ** i;
    if (octet < 128) {
      c.skip(length);
      return !c.short;
    }
  }
  return false;
}
