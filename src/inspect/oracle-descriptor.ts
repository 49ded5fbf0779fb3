import { type Found, viewField } from "./binary.ts";

/**
 * Connect descriptors (Oracle Net Services Reference, "Syntax Rules for Configuration Files"):
 * `(DESCRIPTION=(ADDRESS=(HOST=h)(PORT=1521))(CONNECT_DATA=(SERVICE_NAME=s)(CID=(PROGRAM=p)(HOST=c)(USER=u))))`.
 */
const DEPTH_MAX = 16;
const BLANKS = " \t\r\n\0";

/** What a key is in the evidence, with the key it stands in. */
const KEYS: Readonly<Record<string, keyof Found>> = {
  "CONNECT_DATA.SERVICE_NAME": "service",
  "CONNECT_DATA.SID": "service",
  "CONNECT_DATA.COMMAND": "method",
  "CID.PROGRAM": "application",
  "CID.USER": "user",
  "ADDRESS.HOST": "host",
};

/** Undefined when it is malformed, has no CONNECT_DATA, or names two services. */
export function readDescriptor(text: string): Found | undefined {
  const found: { -readonly [K in keyof Found]: Found[K] } = {};
  const stack: string[] = [];
  let hasConnectData = false;
  for (let at = 0; at < text.length; ) {
    const c = text[at] as string;
    if (BLANKS.includes(c)) at++;
    else if (c === ")") {
      if (stack.pop() === undefined) return undefined;
      at++;
    } else if (c === "(") {
      const equals = text.indexOf("=", at);
      const key = text
        .slice(at + 1, equals)
        .trim()
        .toUpperCase();
      if (equals < 0 || stack.length === DEPTH_MAX || !isKey(key)) return undefined;
      stack.push(key);
      hasConnectData ||= key === "CONNECT_DATA";
      at = equals + 1;
    } else {
      // A value, up to its parenthesis.
      const end = c === '"' ? text.indexOf('"', at + 1) + 1 : endOf(text, at);
      const value = text.slice(at, end).trim();
      const name = KEYS[stack.slice(-2).join(".")];
      if (end <= at || stack.length === 0) return undefined;
      if (name === "service" && found.service !== undefined) return undefined;
      if (name !== undefined) found[name] ??= viewField(Buffer.from(c === '"' ? value.slice(1, -1) : value, "latin1"));
      at = end;
    }
  }
  return stack.length === 0 && hasConnectData ? found : undefined;
}

function endOf(text: string, at: number): number {
  let end = at;
  while (end < text.length && text[end] !== "(" && text[end] !== ")") end++;
  return end;
}

function isKey(key: string): boolean {
  if (key === "" || key.length > 64) return false;
  for (let i = 0; i < key.length; i++) {
    const c = key.charCodeAt(i);
    if (!((c >= 0x41 && c <= 0x5a) || (c >= 0x30 && c <= 0x39) || c === 0x5f || c === 0x2e)) return false;
  }
  return true;
}
