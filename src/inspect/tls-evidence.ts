import { LEGACY_TLS, type Evidence } from "../model/verdict.ts";
import { ja4 } from "./ja4.ts";
import { newestVersion, type ClientHello } from "./tls-hello.ts";

/** What a ClientHello says, for an evidence of TLS, DTLS or QUIC; `version` is the newest that is offered. */
export function helloEvidence(hello: ClientHello, carrier: "t" | "q" | "d") {
  const { serverName, alpn, ech } = hello;
  const newest = newestVersion(hello);
  const evidence = { serverName, alpn, ja4: ja4(hello, carrier), ech, version: versionText(newest) };
  // RFC 7568: nobody may offer it, and no client of the last ten years offers nothing better.
  return newest === 0x0300 ? { ...evidence, evasion: `${LEGACY_TLS}: SSL 3.0` } : evidence;
}

const VERSIONS: Readonly<Record<number, NonNullable<Evidence["version"]>>> = {
  0x0304: "1.3",
  0x0303: "1.2",
  0x0302: "1.1",
  0x0301: "1.0",
  0x0300: "SSL 3.0",
  0x0002: "SSL 2.0",
  0xfefc: "1.3",
  0xfefd: "1.2",
  0xfeff: "1.0",
};

/** `1.2`, `SSL 3.0`; hexadecimal what has no name (drafts). */
export function versionText(version: number): string {
  return VERSIONS[version] ?? `0x${version.toString(16).padStart(4, "0")}`;
}
