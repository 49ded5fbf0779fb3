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
    if (start < end && bytes[start] !== HANDSHAKE) return strange(client);
    if (start === end && closed) {
      const answered = isServerHello(server.bytes, server.start, server.end);
      return answered ? { bad: "a ServerHello without a ClientHello", application: "tls" } : { bad: "no bytes" };
    }
    const found = readClientHello(bytes, start, end);
    if ("bad" in found) return found;
    if (!("need" in found)) return helloEvidence("tls", found, "t");
    const { need, application } = found;
    if (closed) return application === undefined ? { bad: CUT } : { bad: CUT, application };
    return application === undefined ? { need, of: "client" } : { need, of: "client", application };
  },
};

const CUT = "TLS that ends before the ClientHello does";

function strange({ bytes, start, end, closed }: Run): Reading {
  const found = (bytes[start] as number) < 0x80 ? readOtherRecord(bytes, start, end) : readV2Hello(bytes, start, end);
  if (!("need" in found)) return found;
  return closed ? { bad: CUT } : { need: found.need, of: "client" };
}
