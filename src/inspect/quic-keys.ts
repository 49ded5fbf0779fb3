import { type Cipher, createCipheriv, createDecipheriv, createHmac } from "node:crypto";
import type { LongPacket } from "./quic-packet.ts";
import type { QuicVersion } from "./quic-versions.ts";

/**
 * The protection of a client's Initial packets: keys that everybody can derive from the first destination connection id
 * (RFC 9001 §5.2), header protection (§5.4) and AES-128-GCM (§5.3), whose tag tells what a server would take for a packet.
 */
export interface InitialKeys {
  readonly version: QuicVersion;
  readonly dcid: Uint8Array;
  readonly key: Uint8Array;
  readonly iv: Uint8Array;
  /** AES-128-ECB with the header protection key. */
  readonly mask: Cipher;
  /** They opened a packet. */
  proven: boolean;
}

const SAMPLE_BYTES = 16; // RFC 9001 §5.4.2
const NUMBER_BYTES_MAX = 4;
const TAG_BYTES = 16;

/** HkdfLabel of RFC 8446 §7.1 with an empty context, and the counter of a one-block HKDF-Expand (RFC 5869 §2.3). */
function info(label: string, bytes: number): Uint8Array {
  const text = `tls13 ${label}`;
  return Uint8Array.from([0, bytes, text.length, ...Buffer.from(text, "latin1"), 0, 1]);
}
const CLIENT_IN = info("client in", 32);
const INFOS = {
  quic: { key: info("quic key", 16), iv: info("quic iv", 12), hp: info("quic hp", 16) },
  quicv2: { key: info("quicv2 key", 16), iv: info("quicv2 iv", 12), hp: info("quicv2 hp", 16) },
} as const;

const hmac = (key: Uint8Array, data: Uint8Array): Buffer => createHmac("sha256", key).update(data).digest();

export function initialKeys(version: QuicVersion, dcid: Uint8Array): InitialKeys {
  const secret = hmac(hmac(version.salt, dcid), CLIENT_IN);
  const infos = INFOS[version.label];
  const mask = createCipheriv("aes-128-ecb", hmac(secret, infos.hp).subarray(0, 16), null);
  return {
    version,
    dcid: Uint8Array.from(dcid),
    key: hmac(secret, infos.key).subarray(0, 16),
    iv: hmac(secret, infos.iv).subarray(0, 12),
    mask,
    proven: false,
  };
}

/** The frames of the packet; undefined when these keys do not open it. */
export function openInitial(bytes: Uint8Array, packet: LongPacket, keys: InitialKeys): Uint8Array | undefined {
  const { start, numberAt, end } = packet;
  if (end - numberAt < NUMBER_BYTES_MAX + SAMPLE_BYTES) return undefined;
  const mask = keys.mask.update(bytes.subarray(numberAt + NUMBER_BYTES_MAX, numberAt + NUMBER_BYTES_MAX + SAMPLE_BYTES));
  const header = Uint8Array.from(bytes.subarray(start, numberAt + NUMBER_BYTES_MAX));
  header[0] = (header[0] as number) ^ ((mask[0] as number) & 0x0f);
  const numberBytes = ((header[0] as number) & 3) + 1;
  const nonce = Uint8Array.from(keys.iv);
  for (let i = 0; i < numberBytes; i++) {
    const at = numberAt - start + i;
    header[at] = (header[at] as number) ^ (mask[1 + i] as number);
    // The number itself: a client's first packets have small ones, that need no reconstruction (RFC 9000 §17.1).
    const into = nonce.length - numberBytes + i;
    nonce[into] = (nonce[into] as number) ^ (header[at] as number);
  }
  const decipher = createDecipheriv("aes-128-gcm", keys.key, nonce);
  decipher.setAAD(header.subarray(0, numberAt - start + numberBytes));
  decipher.setAuthTag(bytes.subarray(end - TAG_BYTES, end));
  const frames = decipher.update(bytes.subarray(numberAt + numberBytes, end - TAG_BYTES));
  try {
    decipher.final();
  } catch {
    return undefined; // the tag is wrong: the one way Node tells it
  }
  keys.proven = true;
  return frames;
}
