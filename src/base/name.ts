import type { Brand } from "./brand.ts";

/**
 * A host name: lower case ASCII, no trailing dot, labels of 1..63 octets from [a-z0-9_-], at most 253 octets in all
 * (RFC 1035 §2.3.4; the underscore for service names, RFC 2782). A label with a dot, a NUL or any other octet inside
 * has no DnsName: what cannot be written unambiguously is not matched by any policy.
 */
export type DnsName = Brand<string, "DnsName">;

/** A DnsName, or `*.` followed by one: one or more labels below it, never the name itself (NPEP-133). */
export type NamePattern = Brand<string, "NamePattern">;

export const NAME_OCTETS_MAX = 253; // RFC 1035 §2.3.4: 255 on the wire
export const LABEL_OCTETS_MAX = 63; // RFC 1035 §2.3.4

/** The one door for text: undefined when `text` is not a host name. One trailing dot and upper case are accepted. */
export function dnsName(text: string): DnsName | undefined {
  let end = text.length;
  if (end > 0 && text.charCodeAt(end - 1) === 46) end--;
  if (end === 0 || end > NAME_OCTETS_MAX) return undefined;
  let label = 0;
  for (let i = 0; i < end; i++) {
    const c = text.charCodeAt(i);
    if (c === 46) {
      if (label === 0) return undefined;
      label = 0;
      continue;
    }
    const letter = (c >= 97 && c <= 122) || (c >= 65 && c <= 90) || (c >= 48 && c <= 57) || c === 45 || c === 95;
    if (!letter || ++label > LABEL_OCTETS_MAX) return undefined;
  }
  if (label === 0) return undefined;
  return text.slice(0, end).toLowerCase() as DnsName;
}

/** The same door for bytes[start..end), as TLS writes it: without a trailing dot. Letters in any case. */
export function dnsNameAt(bytes: Uint8Array, start: number, end: number): DnsName | undefined {
  const length = end - start;
  if (length <= 0 || length > NAME_OCTETS_MAX) return undefined;
  const codes = new Array<number>(length);
  let label = 0;
  for (let i = 0; i < length; i++) {
    let c = bytes[start + i] as number;
    if (c === 46) {
      if (label === 0) return undefined;
      label = 0;
    } else {
      if (c >= 65 && c <= 90) c |= 0x20;
      const letter = (c >= 97 && c <= 122) || (c >= 48 && c <= 57) || c === 45 || c === 95;
      if (!letter || ++label > LABEL_OCTETS_MAX) return undefined;
    }
    codes[i] = c;
  }
  return label === 0 ? undefined : (String.fromCharCode.apply(null, codes) as DnsName); // one flat string
}

/** The one door for patterns. `*` alone, `a*.x` and `x.*` are not patterns. */
export function namePattern(text: string): NamePattern | undefined {
  if (text.startsWith("*.")) {
    const base = dnsName(text.slice(2));
    return base === undefined || base.length > NAME_OCTETS_MAX - 2 ? undefined : (`*.${base}` as NamePattern);
  }
  return dnsName(text) as NamePattern | undefined;
}

/** Slow and obviously right; the compiled matcher in policy/ is compared with it. */
export function patternMatches(pattern: NamePattern, name: DnsName): boolean {
  return pattern.startsWith("*.")
    ? name.endsWith(pattern.slice(1)) && name.length > pattern.length - 1
    : (pattern as string) === (name as string);
}
