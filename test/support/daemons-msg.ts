import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Child } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { daemon, folder, OUT } from "./daemons.ts";
import { unconfined } from "./resolvers.ts";
import { certificate } from "./servers.ts";

/** Servers of messages, directories and shells, as in daemons.ts. */

/** mosquitto, plain and (its port plus one) with TLS; anybody may publish. */
export async function mosquitto(lab: Lab, port: number): Promise<Child> {
  const { key, cert } = await certificate(lab);
  const lines = [
    "user root",
    "persistence false",
    "log_dest stderr",
    `listener ${port}`,
    "allow_anonymous true",
    `listener ${port + 1}`,
    `certfile ${cert}`,
    `keyfile ${key}`,
    "allow_anonymous true",
  ];
  return daemon(lab, ["mosquitto", "-c", lab.file("mosquitto.conf", `${lines.join("\n")}\n`)], { tcp: [port, port + 1] });
}

/** sshd; root logs in with the key that this answers, and may only have the words `hello from sshd` said. */
export async function sshd(lab: Lab, port: number): Promise<{ child: Child; key: string }> {
  const home = folder(lab, "ssh");
  mkdirSync("/run/sshd", { recursive: true, mode: 0o755 }); // compiled in: the empty folder of the process without privileges
  for (const name of ["host", "user"]) await lab.run(OUT, ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", join(home, name)]);
  const lines = [
    `Port ${port}`,
    "ListenAddress ::",
    "ListenAddress 0.0.0.0",
    `HostKey ${home}/host`,
    `AuthorizedKeysFile ${home}/user.pub`,
    "StrictModes no",
    "UsePAM no",
    "UseDNS no",
    "PermitRootLogin yes",
    "PasswordAuthentication no",
    `PidFile ${home}/pid`,
    "ForceCommand echo hello from sshd",
  ];
  const child = await daemon(lab, ["/usr/sbin/sshd", "-D", "-e", "-f", lab.file("sshd.conf", `${lines.join("\n")}\n`)], { tcp: [port] });
  return { child, key: join(home, "user") };
}

/** slapd with StartTLS and an empty directory `dc=example,dc=com`, whose manager `cn=alice` has the password `secret`. */
export async function slapd(lab: Lab, port: number): Promise<Child> {
  const { key, cert } = await certificate(lab);
  const home = folder(lab, "slapd");
  const lines = [
    "include /etc/ldap/schema/core.schema",
    `pidfile ${home}/pid`,
    `TLSCertificateFile ${cert}`,
    `TLSCertificateKeyFile ${key}`,
    "TLSVerifyClient never",
    "database ldif",
    `directory ${home}`,
    'suffix "dc=example,dc=com"',
    'rootdn "cn=alice,dc=example,dc=com"',
    "rootpw secret",
  ];
  const config = lab.file("slapd.conf", `${lines.join("\n")}\n`);
  return daemon(lab, [unconfined(lab, "slapd"), "-d", "0", "-f", config, "-h", `ldap://:${port}`], { tcp: [port] });
}

/** NATS with TLS for those who want it. */
export async function nats(lab: Lab, port: number): Promise<Child> {
  const { key, cert } = await certificate(lab);
  const config = `listen: "[::]:${port}"\nallow_non_tls: true\ntls { cert_file: "${cert}", key_file: "${key}" }\n`;
  return daemon(lab, ["nats-server", "-c", lab.file("nats.conf", config)], { tcp: [port] });
}
