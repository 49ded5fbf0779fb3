import { parseIp } from "../base/address.ts";
import { FIELD_CHARS_MAX } from "../model/verdict.ts";
import { Protocol } from "../model/packet.ts";
import { APPLICATIONS, carries, withTls } from "./application.ts";
import { fieldsOf, has, listOf, type Fields, type Report } from "./fields.ts";
import { applicationsOf, fieldText, IDENTITY } from "./identity.ts";
import { isWrong, readName } from "./values.ts";
import { oneOf, show } from "./words.ts";
import type { Path } from "./yaml.ts";

/** `application` of a rule and the fields beside it: do they fit together, and can the rule ever match? */
export function checkApplication(rule: Fields, path: Path, report: Report): void {
  const { application, action } = rule;
  for (const block of Object.keys(IDENTITY)) {
    if (!has(rule, block)) continue;
    checkBlock(block, fieldsOf(rule[block]), [...path, block], report);
    const belongs = typeof application === "string" && applicationsOf(block).includes(application);
    if (belongs) continue;
    const message = `${show(block)} needs \`application: ${block}\``;
    report([...path, block], message, application === undefined ? "add it" : "or remove it", "key");
  }
  if (has(rule, "tls")) checkTls(rule, [...path, "tls"], report);
  if (application === undefined) return;
  if (action === "Deny" || action === "Pass") {
    report(
      [...path, "application"],
      `a ${action} rule cannot want an application`,
      "it is decided by the first packet; use an Accept rule for what is allowed",
      "key",
    );
    return;
  }
  if (typeof application === "string" && APPLICATIONS.has(application)) checkTransports(application, rule, path, report);
}

/** The values of `http: { … }`, `postgresql: { … }` and so on. */
function checkBlock(block: string, lists: Fields, path: Path, report: Report): void {
  for (const list of Object.keys(IDENTITY[block] ?? {})) {
    for (const [i, value] of listOf(lists[list]).entries()) {
      if (typeof value !== "string") continue;
      const problem = wrongValue(`${block}.${list}`, value);
      if (problem !== undefined) report([...path, list, i], ...problem);
    }
  }
  for (const [i, item] of listOf(fieldsOf(lists["proxy"])["targets"]).entries()) {
    const target = fieldsOf(item);
    const at = [...path, "proxy", "targets", i];
    for (const [k, text] of listOf(target["domainNames"]).entries()) {
      const name = typeof text === "string" ? readName(text) : undefined;
      if (typeof name === "object" && isWrong(name)) report([...at, "domainNames", k], name.message, name.hint);
    }
    for (const [k, range] of listOf(target["ports"]).entries()) {
      const { port, endPort } = fieldsOf(range);
      if (typeof port === "number" && typeof endPort === "number" && endPort < port)
        report([...at, "ports", k, "endPort"], `endPort ${endPort} is less than port ${port}`);
    }
  }
}

function wrongValue(list: string, value: string): [message: string, hint: string | undefined] | undefined {
  if (list === "http.hosts") {
    const name = parseIp(value) === undefined ? readName(value) : undefined;
    return typeof name === "object" && isWrong(name) ? [name.message, name.hint] : undefined;
  }
  const star = value.indexOf("*");
  if (star >= 0 && star < value.length - 1)
    return [`${show(value)} has a \`*\` that is not at its end`, "a `*` at the end stands for any rest"];
  if (fieldText(value).length >= FIELD_CHARS_MAX) return [`${show(value)} is longer than what is compared`, undefined];
  if (list === "http.methods" && value !== value.toUpperCase())
    return [`${show(value)} is no method`, `methods are upper case: ${show(value.toUpperCase())}`];
  if (list === "http.paths") {
    if (value.includes("?")) return [`${show(value)} has a query`, "paths are compared without it"];
    if (!value.startsWith("/") && value !== "*") return [`${show(value)} is no path`, `paths begin with a slash: ${show(`/${value}`)}`];
  }
  return undefined;
}

function checkTls(rule: Fields, path: Path, report: Report): void {
  const { application } = rule;
  const { ech, opaque } = fieldsOf(rule["tls"]);
  if (application === undefined) return report(path, "`tls` needs an `application`", "add application: tls, or another one", "key");
  if (typeof application !== "string") return;
  const how = withTls(application);
  if (how === "never") return report(path, `${application} is not spoken inside TLS`, "remove it", "key");
  if (how === "is" && opaque !== undefined)
    report(
      [...path, "opaque"],
      `${application} has nothing that could be inside`,
      "it is for applications such as kafka; remove it",
      "key",
    );
  if (ech === "Strip" && !listOf(rule["to"]).some((destination) => has(fieldsOf(destination), "domainNames")))
    report([...path, "ech"], "`Strip` needs `domainNames`", "it is about DNS replies for the rule's names; use Allow or Deny");
  const block = Object.keys(IDENTITY).find((one) => has(rule, one));
  if (opaque === "Allow" && block !== undefined)
    report([...path, "opaque"], `what ${show(block)} wants cannot be seen inside TLS`, "make two rules of it");
}

function checkTransports(application: string, rule: Fields, path: Path, report: Report): void {
  const ports = listOf(rule["ports"]).map(fieldsOf);
  const overTcp = ports.some((port) => (port["protocol"] ?? "TCP") === "TCP");
  for (const [i, port] of ports.entries()) {
    const protocol = port["protocol"] ?? "TCP";
    if (typeof protocol !== "string" || !Object.hasOwn(Protocol, protocol)) continue;
    const number = Protocol[protocol as keyof typeof Protocol];
    // TLS beside TCP on UDP is QUIC (HTTPS on both); on UDP alone it is a slip.
    if (carries(number, application) && !(application === "tls" && number === Protocol.UDP && !overTcp)) continue;
    report(
      [...path, "ports", i, ...(has(port, "protocol") ? ["protocol"] : [])],
      `${application} is not spoken over ${protocol}`,
      transportHint(application, protocol),
    );
  }
}

function transportHint(application: string, protocol: string): string {
  if (protocol === "UDP" && application === "tls") return "use application: quic (HTTP/3) or dtls";
  if (protocol === "UDP" && application.startsWith("http")) return "HTTP/3 is application: quic";
  const known = APPLICATIONS.get(application);
  const over = [...(known?.tcp ? ["TCP"] : []), ...(known?.udp ? ["UDP"] : [])];
  return `use protocol: ${oneOf(over)}, or make two rules of it`;
}
