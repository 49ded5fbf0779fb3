/** DNS record types by name (IANA, "Domain Name System (DNS) Parameters"). */
const TYPES: Readonly<Record<string, number>> = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  NULL: 10,
  PTR: 12,
  HINFO: 13,
  MX: 15,
  TXT: 16,
  RP: 17,
  AFSDB: 18,
  SIG: 24,
  KEY: 25,
  AAAA: 28,
  LOC: 29,
  SRV: 33,
  NAPTR: 35,
  CERT: 37,
  DNAME: 39,
  DS: 43,
  SSHFP: 44,
  IPSECKEY: 45,
  RRSIG: 46,
  NSEC: 47,
  DNSKEY: 48,
  NSEC3: 50,
  TLSA: 52,
  SMIMEA: 53,
  CDS: 59,
  CDNSKEY: 60,
  OPENPGPKEY: 61,
  SVCB: 64,
  HTTPS: 65,
  SPF: 99,
  IXFR: 251,
  AXFR: 252,
  ANY: 255,
  URI: 256,
  CAA: 257,
};
export const RECORD_TYPES: readonly string[] = Object.keys(TYPES);
const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(TYPES).map(([name, type]) => [type, name]));

/** `NULL`, or a number as RFC 3597 §5 writes it: `TYPE65399`. Undefined: neither. */
export function recordType(text: string): number | undefined {
  if (Object.hasOwn(TYPES, text)) return TYPES[text];
  const number = /^TYPE(\d{1,5})$/.exec(text)?.[1];
  return number === undefined || Number(number) > 65_535 ? undefined : Number(number);
}

export function recordTypeText(type: number): string {
  return NAMES.get(type) ?? `TYPE${type}`;
}
