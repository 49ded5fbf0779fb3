import { LEGACY_TLS, type Evidence } from "../model/verdict.ts";
import { ja4 } from "./ja4.ts";
import type { ClientHello } from "./tls-hello.ts";

/** The evidence of TLS, DTLS or QUIC; `version` is the newest that is offered. */
export interface HelloEvidence<Application extends string> extends Evidence {
  readonly application: Application;
  readonly alpn: readonly string[];
  readonly ja4: string;
  readonly ech: boolean;
  readonly version: string;
}

/** What a ClientHello says. */
export function helloEvidence<Application extends string>(
  application: Application,
  hello: ClientHello,
  carrier: "t" | "q" | "d",
): HelloEvidence<Application> {
  const { serverName, alpn, ech } = hello;
  const evidence = { application, serverName, alpn, ja4: ja4(hello, carrier), ech, version: versionText(hello.version) };
  // RFC 7568: nobody may offer it, and no client of the last ten years offers nothing better.
  return hello.version === 0x0300 ? { ...evidence, evasion: `${LEGACY_TLS}: SSL 3.0` } : evidence;
}

/** `1.2`, `SSL 3.0`; hexadecimal what has no name (drafts). */
export function versionText(version: number): string {
  switch (version) {
    case 0x0304:
    case 0xfefc:
      return "1.3";
    case 0x0303:
    case 0xfefd:
      return "1.2";
    case 0x0302:
      return "1.1";
    case 0x0301:
    case 0xfeff:
      return "1.0";
    case 0x0300:
      return "SSL 3.0";
    case 0x0002:
      return "SSL 2.0";
    default:
      return `0x${version.toString(16).padStart(4, "0")}`;
  }
}
