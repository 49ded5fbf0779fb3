import type { LabelExpression, LabelSelector } from "../model/policy.ts";

const TEXT_MAX = 1024;
const REQUIREMENTS_MAX = 32;

/**
 * A label selector as kubectl's `-l` has it: `app=web`, `app==web`, `tier!=front`, `app in (a, b)`, `app notin (a)`, `app`, `!app`, with commas
 * between them. Text: what is wrong with it.
 */
export function parseSelector(text: string): LabelSelector | string {
  if (text.length > TEXT_MAX) return `longer than ${TEXT_MAX} characters`;
  const parts = split(text);
  if (parts === undefined) return "the brackets do not fit";
  if (parts.length > REQUIREMENTS_MAX) return `more than ${REQUIREMENTS_MAX} requirements`;
  const matchExpressions: LabelExpression[] = [];
  for (const part of parts) {
    const one = requirement(part.trim());
    if (typeof one === "string") return one;
    matchExpressions.push(one);
  }
  return { matchLabels: {}, matchExpressions };
}

/** At the commas that are in no bracket. */
function split(text: string): string[] | undefined {
  const parts: string[] = [];
  let from = 0;
  let open = false;
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "(" || c === ")") {
      if (open === (c === "(")) return undefined;
      open = !open;
    } else if (c === "," && !open) {
      parts.push(text.slice(from, i));
      from = i + 1;
    }
  }
  parts.push(text.slice(from));
  return open ? undefined : parts;
}

function requirement(text: string): LabelExpression | string {
  const bracket = text.indexOf("(");
  if (bracket >= 0) {
    const [key = "", word = "", ...more] = text
      .slice(0, bracket)
      .split(/\s/)
      .filter((one) => one !== "");
    const operator = word === "in" ? "In" : word === "notin" ? "NotIn" : undefined;
    if (operator === undefined || more.length > 0 || !text.endsWith(")"))
      return `${JSON.stringify(text)}: KEY in (A, B) or KEY notin (A, B) is wanted`;
    const values = text
      .slice(bracket + 1, -1)
      .split(",")
      .map((value) => value.trim());
    return expression(key, operator, values);
  }
  const equals = text.indexOf("=");
  if (equals >= 0) {
    const not = text[equals - 1] === "!";
    const value = text.slice(text[equals + 1] === "=" ? equals + 2 : equals + 1).trim();
    return expression(text.slice(0, not ? equals - 1 : equals).trim(), not ? "NotIn" : "In", [value]);
  }
  return text.startsWith("!") ? expression(text.slice(1).trim(), "DoesNotExist", []) : expression(text, "Exists", []);
}

function expression(key: string, operator: LabelExpression["operator"], values: readonly string[]): LabelExpression | string {
  if (!isWord(key, "./_-", 317) || key === "") return `${JSON.stringify(key)} is no label key`;
  const bad = values.find((value) => !isWord(value, "._-", 63));
  return bad === undefined ? { key, operator, values } : `${JSON.stringify(bad)} is no label value`;
}

function isWord(text: string, signs: string, max: number): boolean {
  if (text.length > max) return false;
  for (const c of text) if (!/[A-Za-z0-9]/.test(c) && !signs.includes(c)) return false;
  return true;
}
