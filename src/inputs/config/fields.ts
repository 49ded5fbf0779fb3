import { type Endpoint, type Ip, parseEndpoint, parseIp } from "../../base/address.ts";
import { dnsName, type NamePattern, namePattern } from "../../base/name.ts";
import { oneOf, show, suggest } from "../../policy/words.ts";
import type { Path } from "../../policy/yaml.ts";

/** Says that the value at `path` is wrong. `key`: point at the name of the field. */
export type Say = (path: Path, message: string, hint: string | undefined, which?: "key") => void;

/** Reads one value; says what is wrong with it and gives undefined. */
export type Reader<T> = (value: unknown, path: Path, say: Say) => T | undefined;

/** Entries of any list. */
const ITEMS_MAX = 64;
const TEXT_MAX = 4096;

/** A mapping with these fields and no others; a field that is absent, or null, is undefined. */
export function fields<T extends Readonly<Record<string, Reader<unknown>>>>(
  known: T,
): Reader<{ readonly [K in keyof T]: ReturnType<T[K]> | undefined }> {
  return (value, path, say) => {
    const mapping: unknown = value ?? {};
    if (typeof mapping !== "object" || mapping === null || Array.isArray(mapping))
      return wrong(path, say, "must be a mapping (`key: value`)");
    const found: Record<string, unknown> = {};
    for (const [key, given] of Object.entries(mapping)) {
      const read = Object.hasOwn(known, key) ? known[key] : undefined;
      const near = suggest(key, Object.keys(known));
      if (read === undefined)
        say(
          [...path, key],
          `unknown field ${show(key)}`,
          near === undefined ? `known are: ${Object.keys(known).join(", ")}` : `did you mean ${show(near)}?`,
          "key",
        );
      else if (given !== null) found[key] = read(given, [...path, key], say);
    }
    return found as { [K in keyof T]: ReturnType<T[K]> | undefined };
  };
}

function wrong(path: Path, say: Say, message: string, hint?: string): undefined {
  say(path, message, hint);
  return undefined;
}

export const text: Reader<string> = (value, path, say) => {
  if (typeof value !== "string") return wrong(path, say, "must be text", "put it in quotes");
  if (value === "" || value.length > TEXT_MAX || /[\p{Cc}]/u.test(value)) return wrong(path, say, "is empty, too long, or not printable");
  return value;
};

/** Text of a form; `hint` says which. */
export function matching(form: RegExp, hint: string): Reader<string> {
  return (value, path, say) => {
    const found = text(value, path, say);
    if (found === undefined || form.test(found)) return found;
    return wrong(path, say, `${show(found)} is not of the right form`, hint);
  };
}

export const flag: Reader<boolean> = (value, path, say) =>
  typeof value === "boolean" ? value : wrong(path, say, "must be true or false", "without quotes");

export function choice<T extends string>(values: readonly T[]): Reader<T> {
  return (value, path, say) => {
    const found = values.find((one) => one === value);
    if (found !== undefined) return found;
    const near = typeof value === "string" ? suggest(value, values) : undefined;
    return wrong(path, say, "is not one of the values", near === undefined ? `use ${oneOf(values)}` : `did you mean ${show(near)}?`);
  };
}

/** A whole number; text like `0x3040` too. */
export function number(least: number, most: number): Reader<number> {
  return (value, path, say) => {
    const found = typeof value === "string" && /^(0x[0-9a-fA-F]{1,8}|\d{1,10})$/.test(value) ? Number(value) : value;
    if (typeof found !== "number" || !Number.isInteger(found) || found < least || found > most)
      return wrong(path, say, `must be a whole number from ${least} to ${most}`);
    return found;
  };
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };

/** `500ms`, `3s`, `5m`; gives milliseconds. */
export function duration(leastMs: number, mostMs: number): Reader<number> {
  return (value, path, say) => {
    const found = typeof value === "string" ? /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m)$/.exec(value) : null;
    if (found === null) return wrong(path, say, "must be a time with a unit", "for example 500ms, 3s or 5m");
    const ms = Number(found[1]) * (UNITS[found[2] as string] as number);
    return ms >= leastMs && ms <= mostMs ? ms : wrong(path, say, `must be from ${leastMs}ms to ${mostMs}ms`);
  };
}

const SIZES: Readonly<Record<string, number>> = { "": 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 };

/** Bytes: a number, or `512Ki`, `64Mi`, `1Gi`. */
export function size(least: number, most: number): Reader<number> {
  return (value, path, say) => {
    const found = typeof value === "string" || typeof value === "number" ? /^(\d{1,12})(Ki|Mi|Gi|)$/.exec(String(value)) : null;
    if (found === null) return wrong(path, say, "must be a size", "for example 512Ki, 64Mi or 1Gi");
    const bytes = Number(found[1]) * (SIZES[found[2] as string] as number);
    return bytes >= least && bytes <= most ? bytes : wrong(path, say, `must be from ${least} to ${most} bytes`);
  };
}

export function list<T>(read: Reader<T>): Reader<readonly T[]> {
  return (value, path, say) => {
    if (!Array.isArray(value)) return wrong(path, say, "must be a list", "put `- ` before each entry, or [ ] around them");
    if (value.length > ITEMS_MAX) return wrong(path, say, `more than ${ITEMS_MAX} entries`);
    const found = value.map((one: unknown, i) => read(one, [...path, i], say));
    return found.includes(undefined) ? undefined : (found as T[]);
  };
}

export const address: Reader<Ip> = (value, path, say) =>
  (typeof value === "string" ? parseIp(value) : undefined) ??
  wrong(path, say, "is not an IP address", "without a prefix length; IPv6 in quotes");

export const endpoint: Reader<Endpoint> = (value, path, say) =>
  (typeof value === "string" ? parseEndpoint(value) : undefined) ??
  wrong(path, say, "is not an address and port", 'write "10.96.0.10:53" or "[fd00::a]:53"');

export const pattern: Reader<NamePattern> = (value, path, say) =>
  (typeof value === "string" ? namePattern(value) : undefined) ??
  wrong(path, say, "is not a domain name", "for example dns.google, or *.dns.example for all below it");

export const domain: Reader<string> = (value, path, say) =>
  (typeof value === "string" ? dnsName(value) : undefined) ?? wrong(path, say, "is not a domain name", "for example cluster.local");
