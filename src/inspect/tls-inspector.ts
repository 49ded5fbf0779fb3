import { Protocol } from "../model/packet.ts";
import type { Inspector, Reading, Run } from "./inspector.ts";
import { helloEvidence } from "./tls-evidence.ts";
import { isServerHello, readOtherRecord, readV2Hello } from "./tls-strange.ts";
import { HANDSHAKE, readClientHello } from "./tls.ts";

/**
 * TLS over TCP: the server name, ALPN and fingerprint of the ClientHello. A second ClientHello, which a server can ask
 * for, must have the same server name (RFC 8446 §4.1.2) and comes after the verdict.
 */
export const tlsInspector: Inspector = {
  application: "tls",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client, server }): Reading {
    const { bytes, start, end, closed } = client;
    if (start === end && closed) {
      const answered = isServerHello(server.bytes, server.start, server.end);
      return answered ? { bad: "a ServerHello without a ClientHello", application: "tls" } : { bad: "no bytes" };
    }
    const reading = start === end || bytes[start] === HANDSHAKE ? hello(client) : strange(client);
    if (!("need" in reading) || !closed) return reading;
    return { bad: "TLS that ends before the ClientHello does", ...(reading.application === undefined ? {} : { application: "tls" }) };
  },
};

function hello({ bytes, start, end }: Run): Reading {
  const found = readClientHello(bytes, start, end);
  if ("bad" in found) return found;
  if ("need" in found) return { ...found, of: "client" };
  return { application: "tls", ...helloEvidence(found, "t") };
}

function strange({ bytes, start, end }: Run): Reading {
  const found = (bytes[start] as number) < 0x80 ? readOtherRecord(bytes, start, end) : readV2Hello(bytes, start, end);
  return "need" in found ? { need: found.need, of: "client" } : found;
}
