import { Protocol } from "../model/packet.ts";
import type { Inspector } from "./inspector.ts";
import { ja4 } from "./ja4.ts";
import { readClientHello } from "./tls.ts";

/** TLS over TCP: the server name, ALPN and fingerprint of the ClientHello. */
export const tlsInspector: Inspector = {
  application: "tls",
  transports: [Protocol.TCP],
  opens: "client",
  read({ client }) {
    const hello = readClientHello(client.bytes, client.start, client.end);
    if ("need" in hello) return { need: hello.need, of: "client" };
    if ("bad" in hello) return hello;
    const { serverName, alpn, ech } = hello;
    return { application: "tls", serverName, alpn, ja4: ja4(hello, "t"), ech };
  },
};
