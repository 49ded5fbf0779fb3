/** The versions of QUIC whose Initial packets can be read: salts, labels and packet types. */

export type PacketType = "initial" | "0-rtt" | "handshake" | "retry";

export interface QuicVersion {
  /** As in evidence: `1`, `2`, `draft-29`, `Q050`. */
  readonly name: string;
  /** Of the initial secret (RFC 9001 §5.2). */
  readonly salt: Uint8Array;
  /** `quic`: what the labels of key, iv and header protection begin with. */
  readonly label: "quic" | "quicv2";
  /** By the two type bits of the first byte (RFC 9000 §17.2, RFC 9369 §3.2). */
  readonly types: readonly [PacketType, PacketType, PacketType, PacketType];
  /** What the CRYPTO frames carry. */
  readonly handshake: "tls" | "chlo";
  /** Google's own: frames have other numbers. */
  readonly google: boolean;
}

const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "hex"));

const SALT_1 = hex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"); // RFC 9001 §5.2, drafts 33 and 34
const SALT_2 = hex("0dede3def700a6db819381be6e269dcbf9bd2ed9"); // RFC 9369 §3.3.1
const SALT_DRAFT_29 = hex("afbfec289993d24c9e9786f19c6111e04390a899"); // to 32
const SALT_DRAFT_23 = hex("c3eef712c72ebb5a11a7d2432bb46365bef9f502"); // to 28
const SALT_DRAFT_22 = hex("7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a");
const SALT_Q050 = hex("504574efd066fe2f9d945cfcdbd3a7f0d3b56b45");
const SALT_T050 = hex("7ff579e5acd072915580304c43a2367c60488310");
const SALT_T051 = hex("7a4edef4e7ccee5fa4506c19124fc8ccda6e033d");

const TYPES_1 = ["initial", "0-rtt", "handshake", "retry"] as const;
const TYPES_2 = ["retry", "initial", "0-rtt", "handshake"] as const;

const like1 = (name: string, salt: Uint8Array): QuicVersion => ({
  name,
  salt,
  label: "quic",
  types: TYPES_1,
  handshake: "tls",
  google: false,
});

const VERSIONS = new Map<number, QuicVersion>([
  [0x00000001, like1("1", SALT_1)],
  [0x6b3343cf, { ...like1("2", SALT_2), label: "quicv2", types: TYPES_2 }],
  // Facebook's mvfst before version 1.
  [0xfaceb001, like1("0xfaceb001", SALT_DRAFT_22)],
  [0xfaceb002, like1("0xfaceb002", SALT_DRAFT_23)],
  // Google's last own versions, with its own handshake (Q) or TLS (T).
  [0x51303530, { ...like1("Q050", SALT_Q050), handshake: "chlo", google: true }],
  [0x54303530, { ...like1("T050", SALT_T050), google: true }],
  [0x54303531, { ...like1("T051", SALT_T051), google: true }],
]);
const DRAFTS = 0xff000000;
const FIRST_DRAFT = 22; // before it the header was another
const LAST_DRAFT = 34;
for (let draft = FIRST_DRAFT; draft <= LAST_DRAFT; draft++) {
  const salt = draft >= 33 ? SALT_1 : draft >= 29 ? SALT_DRAFT_29 : draft >= 23 ? SALT_DRAFT_23 : SALT_DRAFT_22;
  VERSIONS.set(DRAFTS + draft, like1(`draft-${draft}`, salt));
}

export function quicVersion(version: number): QuicVersion | undefined {
  return VERSIONS.get(version);
}

/** 0x?a?a?a?a: no server speaks it, it asks for a version negotiation (RFC 9000 §15). */
export function isReservedVersion(version: number): boolean {
  return (version & 0x0f0f0f0f) === 0x0a0a0a0a;
}

/** A version that somebody registered, or reserved, but that is not read here: its name. */
export function otherVersion(version: number): string | undefined {
  const draft = version - DRAFTS;
  if (draft > 0 && draft < 256) return `draft-${draft}`;
  const registered = isReservedVersion(version) || version >>> 8 === 0xfaceb0 || version === 0x709a50c4;
  return registered ? `0x${version.toString(16).padStart(8, "0")}` : undefined;
}
