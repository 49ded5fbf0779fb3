import { domainToASCII } from "node:url";
import { cidrText, parseCidr, parseIp, type Cidr } from "../base/address.ts";
import { LABEL_OCTETS_MAX, NAME_OCTETS_MAX, namePattern, type NamePattern } from "../base/name.ts";
import { show } from "./words.ts";

/** A value that is wrong, in words. */
export interface Wrong {
  readonly message: string;
  readonly hint: string | undefined;
}

const wrong = (message: string, hint?: string): Wrong => ({ message, hint });
export const isWrong = (value: object): value is Wrong => "message" in value;

/** A TTL or grace longer than this is a mistake. */
export const DURATION_MAX_MS = 24 * 3_600_000;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** `500ms`, `30s`, `5m`, `1h`, `1h30m` (GEP-2257), in milliseconds, 0..24h. */
export function readDuration(text: string): number | Wrong {
  if (!/^([0-9]{1,9}(ms|s|m|h)){1,4}$/.test(text)) {
    return wrong(
      `${show(text)} is not a duration`,
      /^[0-9]{1,9}$/.test(text) ? `add a unit: ${text}s` : "write 500ms, 30s, 5m, 1h or 1h30m",
    );
  }
  let ms = 0;
  for (const [, count, unit] of text.matchAll(/([0-9]+)(ms|s|m|h)/g)) ms += Number(count) * (UNIT_MS[unit as string] as number);
  return ms <= DURATION_MAX_MS ? ms : wrong(`${show(text)} is too long`, "at most 24h");
}

/** A network without host bits. */
export function readCidr(text: string): Cidr | Wrong {
  const slash = text.indexOf("/");
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) {
    return wrong(
      `${show(text)} is not a network`,
      namePattern(text) !== undefined && /[a-z]/i.test(text)
        ? "names belong under `domainNames`"
        : "write 192.0.2.0/24, 2001:db8::/32 or one address",
    );
  }
  const cidr = parseCidr(text);
  if (cidr === undefined) return wrong(`${show(text)} has no valid prefix length`, `use 0..${address.length * 8}`);
  if (cidr.ip !== address) return wrong(`${show(text)} has bits set behind its prefix`, `did you mean ${show(cidrText(cidr))}?`);
  return cidr;
}

/** A name or `*.name`. */
export function readName(text: string): NamePattern | Wrong {
  if (text === "*" || text === "*.")
    return wrong("`*` alone is not a name", "for any destination use networks 0.0.0.0/0 and ::/0, or leave `to` out");
  const base = text.startsWith("*.") ? text.slice(2) : text;
  if (parseIp(base) !== undefined || /^[0-9.]+\/[0-9]+$/.test(base))
    return wrong(`${show(text)} is an address`, "addresses belong under `networks`");
  const pattern = namePattern(text);
  if (pattern !== undefined) return pattern;
  return wrong(`${show(text)} is not a host name`, nameHint(text, base));
}

function nameHint(text: string, base: string): string {
  if (/\P{ASCII}/u.test(text)) {
    const ascii = text.length <= NAME_OCTETS_MAX ? domainToASCII(base) : "";
    return ascii === "" ? "write its A-label (xn--…)" : `write its A-label: ${show(text.startsWith("*.") ? `*.${ascii}` : ascii)}`;
  }
  if (text.includes("/")) return "a name only, without scheme and path";
  if (text.includes(":")) return "a name only; the port belongs under `ports`";
  if (text.startsWith("**.") && namePattern(text.slice(1)) !== undefined) return `${show(text.slice(1))} matches at any depth`;
  if (text.startsWith("*") && namePattern(`*.${text.slice(1)}`) !== undefined) return `did you mean ${show(`*.${text.slice(1)}`)}?`;
  if (base.includes("*")) return "a wildcard can only be the whole first label: `*.example.com`";
  if (text.startsWith(".") && namePattern(`*${text}`) !== undefined) return `did you mean ${show(`*${text}`)}?`;
  if (base === "" || base.startsWith(".") || base.includes("..")) return "a label is empty";
  if (base.split(".").some((label) => label.length > LABEL_OCTETS_MAX)) return `a label has more than ${LABEL_OCTETS_MAX} characters`;
  if (base.length > NAME_OCTETS_MAX - 2) return `longer than ${NAME_OCTETS_MAX} characters`;
  return "letters, digits, `-`, `_` and dots only";
}
