import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { latin1, mayStart, shown, sizeOf } from "./parts.ts";
import { withUpgrade } from "./upgrade.ts";

/**
 * XMPP (RFC 6120 §4.2, §5): `<stream:stream to='example.com' ...>`, perhaps an XML declaration before it; then `<starttls/>`,
 * which the server answers with `<proceed/>`, and TLS begins. Stanzas are recognised in the middle of a stream.
 */
const OPENING_MAX = 4096; // declaration and stream tag
const SERVER_MAX = 32_768; // stream tag, features, proceed
const XML = "<?xml ";
const STREAM = "<stream:stream ";
const STANZAS = ["<iq ", "<presence", "<message ", "</stream:stream>"];
const STARTTLS = "<starttls";
const TLS_HANDSHAKE = 22;
const bad = { bad: "no XMPP stream" };

export const xmppInspector: Inspector = {
  application: "xmpp",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client, server }): Reading {
    const application = "xmpp";
    if (!mayStart(client, [XML, STREAM, ...STANZAS])) return bad;
    const text = latin1(client.bytes, client.start, Math.min(client.end, client.start + OPENING_MAX));
    const wait: Reading = client.closed ? bad : { need: sizeOf(client) + 1, of: "client" };
    if ([XML, ...STANZAS].some((start) => start.length > text.length && start.startsWith(text))) return wait;
    if (STANZAS.some((stanza) => text.startsWith(stanza))) return { application, serverName: undefined };
    const tag = streamTag(text);
    if (tag === "not") return bad;
    if (tag === undefined) return text.length >= OPENING_MAX ? bad : wait;
    const to = attribute(tag.attributes, "to");
    const evidence = { application, serverName: undefined, ...(to === "" ? {} : { fields: { host: shown(to) } }) };
    const rest: Run = { ...client, start: client.start + tag.end };
    if (!mayStart(rest, [STARTTLS])) return evidence;
    const end = startTlsEnd(text, tag.end);
    if (end === undefined) {
      if (client.closed || text.length >= OPENING_MAX) return evidence;
      return { need: sizeOf(client) + 1, of: "client", application, ...(sizeOf(rest) === 0 ? { release: true as const } : {}) };
    }
    const at = client.start + end;
    const answer = latin1(server.bytes, server.start, Math.min(server.end, server.start + SERVER_MAX));
    const proceed = answer.indexOf("<proceed");
    const agreed = proceed >= 0 && answer.indexOf(">", proceed) >= 0;
    if (!agreed && answer.includes("<failure")) return evidence;
    if (!agreed && !server.closed && answer.length < SERVER_MAX) {
      if (client.end > at) return { ...evidence, evasion: "bytes behind starttls, before the server agreed" };
      return { need: sizeOf(server) + 1, of: "server", release: true, application };
    }
    if (client.end > at && client.bytes[at] !== TLS_HANDSHAKE) return { ...evidence, evasion: "plain text where TLS has to begin" };
    const reading = withUpgrade(evidence, client, at - client.start);
    return "need" in reading && client.end === at ? { ...reading, release: true } : reading;
  },
};

/** The stream's opening tag behind an XML declaration: its attributes, and where it ends; undefined while it is not all there. */
function streamTag(text: string): { readonly attributes: string; readonly end: number } | "not" | undefined {
  let at = 0;
  if (text.startsWith(XML)) {
    const end = text.indexOf("?>");
    if (end < 0) return undefined;
    at = end + 2;
    while (at < text.length && " \t\r\n".includes(text[at] as string)) at++;
  }
  const there = Math.min(text.length - at, STREAM.length);
  if (text.slice(at, at + there) !== STREAM.slice(0, there)) return "not";
  const end = text.indexOf(">", at);
  return there < STREAM.length || end < 0 ? undefined : { attributes: text.slice(at + STREAM.length - 1, end), end: end + 1 };
}

/** Where `<starttls .../>` or `<starttls ...></starttls>` at `from` ends; undefined while it does not. */
function startTlsEnd(text: string, from: number): number | undefined {
  const end = text.indexOf(">", from);
  if (end < 0 || text[end - 1] === "/") return end < 0 ? undefined : end + 1;
  const closed = text.indexOf(">", end + 1);
  return closed < 0 ? undefined : closed + 1;
}

/** ` name='value'` or with double quotes. */
function attribute(attributes: string, name: string): string {
  for (const quote of ["'", '"']) {
    const from = attributes.indexOf(` ${name}=${quote}`);
    if (from < 0) continue;
    const start = from + name.length + 3;
    const end = attributes.indexOf(quote, start);
    if (end > 0) return attributes.slice(start, end);
  }
  return "";
}
