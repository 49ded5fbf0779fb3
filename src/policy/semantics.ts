import { inCidr, type Cidr } from "../base/address.ts";
import { RECORD_TYPES, recordType } from "../base/record-type.ts";
import { fieldsOf, has, listOf, type Fields, type Report } from "./fields.ts";
import type { Kind } from "./schema.ts";
import { checkApplication } from "./semantics-application.ts";
import { isWrong, readCidr, readDuration, readName, type Wrong } from "./values.ts";
import { show, suggest } from "./words.ts";
import { DNS_DEFAULTS } from "./view.ts";
import type { Path } from "./yaml.ts";

/** What the schema cannot say, or not in a sentence: values with a syntax of their own, and fields that must fit together. */
export function checkMeaning(kind: Kind, document: unknown, report: Report): void {
  const spec = fieldsOf(fieldsOf(document)["spec"]);
  const subject = fieldsOf(spec["subject"]);
  checkSelector(subject["podSelector"], ["spec", "subject", "podSelector"], report);
  checkSelector(subject["namespaceSelector"], ["spec", "subject", "namespaceSelector"], report);
  checkDns(fieldsOf(spec["dns"]), ["spec", "dns"], report);
  const passes = kind === "ClusterEgressPolicy" && spec["tier"] !== "Baseline";
  const names = new Map<string, number>();
  for (const [i, item] of listOf(spec["egress"]).entries()) {
    const path = ["spec", "egress", i];
    const rule = fieldsOf(item);
    const name = typeof rule["name"] === "string" ? rule["name"] : `rule-${i + 1}`;
    const other = names.get(name);
    if (other !== undefined)
      report([...path, "name"], `rule ${other + 1} has the name ${show(name)} too`, "names of rules are unique in a policy");
    else names.set(name, i);
    if (rule["action"] === "Pass" && !passes) report([...path, "action"], "`Pass` is only for Admin policies", "use Accept or Deny");
    checkRule(rule, path, report);
  }
}

function checkSelector(selector: unknown, path: Path, report: Report): void {
  for (const [i, item] of listOf(fieldsOf(selector)["matchExpressions"]).entries()) {
    const { operator, values } = fieldsOf(item);
    const at = [...path, "matchExpressions", i];
    const count = listOf(values).length;
    if ((operator === "In" || operator === "NotIn") && count === 0) {
      report(has(fieldsOf(item), "values") ? [...at, "values"] : at, `${operator} needs \`values\``, "add values: [ … ]", "key");
    }
    if ((operator === "Exists" || operator === "DoesNotExist") && count > 0) {
      report([...at, "values"], `${operator} has no \`values\``, "use In or NotIn, or remove them", "key");
    }
  }
}

function checkDns(dns: Fields, path: Path, report: Report): void {
  const read = (field: string): number | undefined => {
    const text = dns[field];
    if (typeof text !== "string") return undefined;
    const value = readDuration(text);
    if (typeof value === "number") return value;
    report([...path, field], value.message, value.hint);
    return undefined;
  };
  const min = has(dns, "minTtl") ? read("minTtl") : DNS_DEFAULTS.minTtlMs;
  const max = has(dns, "maxTtl") ? read("maxTtl") : DNS_DEFAULTS.maxTtlMs;
  read("grace");
  for (const [i, type] of listOf(fieldsOf(dns["limits"])["types"]).entries()) {
    if (typeof type !== "string" || recordType(type) !== undefined) continue;
    const near = suggest(type.toUpperCase(), RECORD_TYPES);
    report(
      [...path, "limits", "types", i],
      `${show(type)} is no record type`,
      near === undefined ? "a name as TXT, or a number as TYPE65399" : `did you mean ${show(near)}?`,
    );
  }
  if (min !== undefined && max !== undefined && min > max) {
    const field = has(dns, "maxTtl") ? "maxTtl" : "minTtl";
    report([...path, field], "minTtl is more than maxTtl", has(dns, "maxTtl") ? undefined : "the default of maxTtl is 1h");
  }
}

function checkRule(rule: Fields, path: Path, report: Report): void {
  if (Array.isArray(rule["to"]) && rule["to"].length === 0) {
    report([...path, "to"], "an empty `to` could mean anywhere or nowhere", "leave `to` out for anywhere", "key");
  }
  if (Array.isArray(rule["ports"]) && rule["ports"].length === 0) {
    report([...path, "ports"], "empty `ports` could mean any port or none", "leave `ports` out for any port", "key");
  }
  const cnames = new Set<unknown>();
  for (const [i, item] of listOf(rule["to"]).entries()) {
    const destination = fieldsOf(item);
    checkDestination(destination, [...path, "to", i], report);
    if (!has(destination, "domainNames")) continue;
    cnames.add(destination["cnames"] ?? "Ignore");
    if (cnames.size > 1) {
      report([...path, "to", i], "`cnames` is not the same in all of this rule's `to`", "make two rules of it", "key");
      break;
    }
  }
  for (const [i, item] of listOf(rule["ports"]).entries()) checkPort(fieldsOf(item), [...path, "ports", i], report);
  checkApplication(rule, path, report);
}

function checkDestination(destination: Fields, path: Path, report: Report): void {
  const named = has(destination, "domainNames");
  const networked = has(destination, "networks");
  if (named && networked)
    report(path, "`domainNames` and `networks` in one entry", "make two entries of it: one of them must match", "key");
  if (!named && !networked) report(path, "neither `domainNames` nor `networks`", "add one of them", "key");
  if (!named && has(destination, "cnames")) report([...path, "cnames"], "`cnames` needs `domainNames`", "remove it", "key");
  for (const [i, text] of listOf(destination["domainNames"]).entries()) {
    if (typeof text === "string") reportWrong(readName(text), [...path, "domainNames", i], report);
  }
  for (const [i, item] of listOf(destination["networks"]).entries()) checkNetwork(item, [...path, "networks", i], report);
}

function reportWrong(value: string | Cidr | Wrong, path: Path, report: Report): void {
  if (typeof value !== "string" && isWrong(value)) report(path, value.message, value.hint);
}

function checkNetwork(item: unknown, path: Path, report: Report): void {
  if (typeof item === "string") return reportWrong(readCidr(item), path, report);
  const { cidr: text, except } = fieldsOf(item);
  const cidr = typeof text === "string" ? readCidr(text) : undefined;
  if (cidr !== undefined) reportWrong(cidr, [...path, "cidr"], report);
  for (const [i, hole] of listOf(except).entries()) {
    if (typeof hole !== "string") continue;
    const inner = readCidr(hole);
    const at = [...path, "except", i];
    if (isWrong(inner)) reportWrong(inner, at, report);
    else if (cidr === undefined || isWrong(cidr)) continue;
    else if (!inCidr(inner.ip, cidr) || inner.bits < cidr.bits)
      report(at, `${show(hole)} is not inside ${show(String(text))}`, "an exception is a part of its network");
    else if (inner.bits === cidr.bits)
      report(at, `${show(hole)} is all of ${show(String(text))}`, "nothing would be left; remove the network");
  }
}

const isIcmp = (protocol: unknown): boolean => protocol === "ICMP" || protocol === "ICMPv6";

function checkPort(port: Fields, path: Path, report: Report): void {
  const protocol = port["protocol"] ?? "TCP";
  const { port: first, endPort: last } = port;
  for (const field of isIcmp(protocol) ? ["port", "endPort"] : []) {
    if (has(port, field))
      report([...path, field], `${typeof protocol === "string" ? protocol : "this protocol"} has no ports`, "use `type` and `code`", "key");
  }
  for (const field of isIcmp(protocol) ? [] : ["type", "code"]) {
    if (has(port, field)) report([...path, field], `only ICMP and ICMPv6 have a ${show(field)}`, "add protocol: ICMP or ICMPv6", "key");
  }
  if (isIcmp(protocol) && has(port, "code") && !has(port, "type"))
    report([...path, "code"], "`code` needs a `type`", "add the ICMP type", "key");
  if (!isIcmp(protocol) && has(port, "endPort") && !has(port, "port")) {
    report(
      [...path, "endPort"],
      "`endPort` needs a `port` to start at",
      typeof last === "number" ? `for this port alone write port: ${last}` : "add it",
      "key",
    );
  }
  if (typeof first === "number" && typeof last === "number" && last < first) {
    report([...path, "endPort"], `endPort ${last} is less than port ${first}`, `did you mean port: ${last}, endPort: ${first}?`);
  }
}
