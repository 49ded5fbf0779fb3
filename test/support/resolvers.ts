import { accessSync, copyFileSync } from "node:fs";
import { join } from "node:path";
import { type Child, until } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";

/** Name → addresses of either family. */
export type Records = Readonly<Record<string, readonly string[]>>;

/** Runs dnsmasq in a namespace. `ipset` as in its --ipset=/name/set. Needs dnsmasq. It answers when this returns. */
export async function dnsmasq(
  lab: Lab,
  where: string,
  { records, port = 53, ttl = 60, ipset = [] }: { records: Records; port?: number; ttl?: number; ipset?: readonly string[] },
): Promise<Child> {
  const lines = [
    "no-resolv",
    "no-hosts",
    "no-daemon",
    "bind-dynamic",
    `port=${port}`,
    `local-ttl=${ttl}`,
    "cache-size=10000",
    `pid-file=${join(lab.dir, `dnsmasq-${where}-${port}.pid`)}`,
    "user=root",
    ...Object.entries(records).flatMap(([name, addresses]) => addresses.map((address) => `host-record=${name},${address}`)),
    ...ipset.map((one) => `ipset=${one}`),
  ];
  const child = lab.spawn(where, ["dnsmasq", "-C", lab.file(`dnsmasq-${where}-${port}.conf`, `${lines.join("\n")}\n`)]);
  await answers(lab, where, port, child);
  return child;
}

/** Runs unbound in a namespace with these records. Needs unbound and dig. It answers when this returns. */
export async function unbound(
  lab: Lab,
  where: string,
  { records, port = 53, ttl = 60, extra = [] }: { records: Records; port?: number; ttl?: number; extra?: readonly string[] },
): Promise<Child> {
  const data = Object.entries(records).flatMap(([name, addresses]) =>
    addresses.map((address) => `  local-data: "${name}. ${ttl} ${address.includes(":") ? "AAAA" : "A"} ${address}"`),
  );
  const lines = [
    "server:",
    "  interface: 0.0.0.0",
    "  interface: ::0",
    "  interface-automatic: yes",
    `  port: ${port}`,
    "  do-daemonize: no",
    "  use-syslog: no",
    '  username: ""',
    '  chroot: ""',
    `  directory: "${lab.dir}"`,
    `  pidfile: "${join(lab.dir, `unbound-${where}-${port}.pid`)}"`,
    "  access-control: 0.0.0.0/0 allow",
    "  access-control: ::0/0 allow",
    "  num-threads: 1",
    '  local-zone: "." static',
    ...extra.map((line) => `  ${line}`),
    ...data,
    "remote-control:",
    "  control-enable: no",
  ];
  const child = lab.spawn(where, [
    unconfined(lab, "unbound"),
    "-d",
    "-c",
    lab.file(`unbound-${where}-${port}.conf`, `${lines.join("\n")}\n`),
  ]);
  await answers(lab, where, port, child);
  return child;
}

/** Any reply at all, REFUSED included, will do. */
async function answers(lab: Lab, where: string, port: number, child: Child): Promise<void> {
  await until(`a resolver answers on port ${port} of ${where}`, async () => {
    if (child.status !== undefined) return true;
    const asked = await lab.exec(where, [
      "dig",
      "+time=1",
      "+tries=1",
      "+noall",
      "+comments",
      "-p",
      String(port),
      "@127.0.0.1",
      "ready.invalid",
    ]);
    return asked.stdout.includes("status:");
  });
  if (child.status !== undefined) throw new Error(`${child.argv.join(" ")} ended: ${child.err.join("\n")}`);
}

/** Where AppArmor confines a program by its path to the folders of its package, a copy of it is free to read ours. */
export function unconfined(lab: Lab, program: string): string {
  try {
    accessSync("/sys/kernel/security/apparmor/profiles");
    const copy = join(lab.dir, program);
    copyFileSync(`/usr/sbin/${program}`, copy);
    return copy;
  } catch {
    return program;
  }
}
