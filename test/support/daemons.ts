import { chownSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Child, type ExecOptions, until } from "../../src/cli/lab-process.ts";
import type { Lab } from "../../src/cli/lab-types.ts";
import { unconfined } from "./resolvers.ts";
import { certificate } from "./servers.ts";

/** Debian's servers, each with a configuration of its own in the lab's folder, in the namespace `out`, on all its addresses. */
export const OUT = "out";
/** MariaDB and PostgreSQL make their files first. */
const START_MS = 30_000;

/** Starts a program that listens; it does when this returns. */
export async function daemon(
  lab: Lab,
  argv: readonly string[],
  { tcp = [], udp = [], ...options }: ExecOptions & { tcp?: readonly number[]; udp?: readonly number[] },
): Promise<Child> {
  const child = lab.spawn(OUT, argv, options);
  await until(
    `${argv.join(" ").slice(0, 200)} listens`,
    async () => {
      if (child.status !== undefined) return true;
      const listening = await lab.run(OUT, ["ss", "-Hltun"]);
      const has = (kind: string, port: number): boolean => new RegExp(`^${kind} .*:${port}\\s`, "m").test(listening);
      return tcp.every((port) => has("tcp", port)) && udp.every((port) => has("udp", port));
    },
    START_MS,
    50,
  );
  if (child.status !== undefined) throw new Error(`${argv.join(" ")} ended: ${[...child.out, ...child.err].slice(-20).join("\n")}`);
  return child;
}

/** A folder of the lab's; `uid`: its owner. */
export function folder(lab: Lab, name: string, uid?: number): string {
  const path = join(lab.dir, name);
  mkdirSync(path, { recursive: true });
  if (uid !== undefined) chownSync(path, uid, -1);
  return path;
}

async function uidOf(lab: Lab, user: string): Promise<number> {
  return Number(await lab.run(OUT, ["id", "-u", user]));
}

/** Ports: `plain` has HTTP/1.1, `h2c` HTTP/2 without an upgrade, `tls` both. */
interface Web {
  readonly plain?: readonly number[];
  readonly h2c?: readonly number[];
  readonly tls?: readonly number[];
}

/** nginx; every server answers with the protocol, the host and the path of the request. */
export async function nginx(lab: Lab, { plain = [], h2c = [], tls = [] }: Web): Promise<Child> {
  const { key, cert } = await certificate(lab);
  const listen = [
    ...plain.map((port) => `listen [::]:${port} ipv6only=off;`),
    ...h2c.map((port) => `listen [::]:${port} ipv6only=off http2;`),
    ...tls.map((port) => `listen [::]:${port} ipv6only=off ssl http2;`),
  ];
  const config = `
daemon off; master_process off; user root; pid ${lab.dir}/nginx.pid; error_log stderr;
events { worker_connections 64; }
http {
  access_log off; client_body_temp_path ${lab.dir}/nginx-body; proxy_temp_path ${lab.dir}/nginx-proxy;
  fastcgi_temp_path ${lab.dir}/nginx-fastcgi; uwsgi_temp_path ${lab.dir}/nginx-uwsgi; scgi_temp_path ${lab.dir}/nginx-scgi;
  server {
    ${listen.join("\n    ")}
    ssl_certificate ${cert}; ssl_certificate_key ${key};
    ssl_protocols TLSv1.2 TLSv1.3; large_client_header_buffers 4 64k;
    location / { default_type text/plain; return 200 "$server_protocol from nginx for $host$request_uri\\n"; }
  }
}
`;
  return daemon(lab, ["nginx", "-p", lab.dir, "-c", lab.file("nginx.conf", config)], { tcp: [...plain, ...h2c, ...tls] });
}

/** PostgreSQL 15 with SSL: users alice and bob with the password `secret` (SCRAM), database shop. */
export async function postgresql(lab: Lab, port: number): Promise<Child> {
  const uid = await uidOf(lab, "postgres");
  const home = folder(lab, "postgresql", uid);
  const data = join(home, "data");
  const asPostgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
  const bin = "/usr/lib/postgresql/15/bin";
  const { key, cert } = await certificate(lab);
  await lab.run(OUT, [...asPostgres, `${bin}/initdb`, "-D", data, "-A", "trust", "--no-sync", "-U", "postgres"], { timeoutMs: START_MS });
  const start = "CREATE ROLE alice LOGIN PASSWORD 'secret'; CREATE ROLE bob LOGIN PASSWORD 'secret';\nCREATE DATABASE shop;\n";
  const single = [...asPostgres, `${bin}/postgres`, "--single", "-F", "-D", data, "postgres"];
  await lab.run(OUT, single, { input: start.replace("; ", ";\n"), timeoutMs: START_MS });
  const hba = lab.file("pg_hba.conf", "host all all all scram-sha-256\n");
  const files = await lab.run(OUT, [
    "sh",
    "-c",
    `cp ${key} ${home}/key && cp ${cert} ${home}/crt && chown postgres ${home}/* ${hba} && chmod 600 ${home}/key`,
  ]);
  if (files !== "") throw new Error(files);
  const settings = [
    `hba_file=${hba}`,
    "listen_addresses=*",
    `port=${port}`,
    `unix_socket_directories=${home}`,
    "ssl=on",
    `ssl_key_file=${home}/key`,
    `ssl_cert_file=${home}/crt`,
    "fsync=off",
  ];
  return daemon(lab, [...asPostgres, `${bin}/postgres`, "-D", data, ...settings.flatMap((text) => ["-c", text])], { tcp: [port] });
}

/** MariaDB with TLS: users alice and bob with the password `secret`, database shop. */
export async function mariadb(lab: Lab, port: number): Promise<Child> {
  const home = folder(lab, "mariadb");
  const data = join(home, "data");
  const { key, cert } = await certificate(lab);
  const common = ["--no-defaults", "--user=root", `--datadir=${data}`];
  const install = ["mariadb-install-db", ...common, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"];
  await lab.run(OUT, install, { timeoutMs: START_MS });
  const users = ["alice", "bob"].map((user) => `CREATE USER ${user}@'%' IDENTIFIED BY 'secret';\nGRANT ALL ON shop.* TO ${user}@'%';`);
  const init = lab.file("mariadb.sql", ["CREATE DATABASE shop;", ...users].join("\n"));
  const net = ["--bind-address=*", `--port=${port}`, `--socket=${home}/socket`, `--pid-file=${home}/pid`, "--skip-name-resolve"];
  const quick = ["--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--innodb-fast-shutdown=2", `--init-file=${init}`];
  const tls = [`--ssl-key=${key}`, `--ssl-cert=${cert}`];
  return daemon(lab, [unconfined(lab, "mariadbd"), ...common, ...net, ...quick, ...tls], { tcp: [port] });
}

/** Redis, plain and (its port plus one) with TLS: user alice with the password `secret`, and the default user without. */
export async function redis(lab: Lab, port: number): Promise<Child> {
  const { key, cert } = await certificate(lab);
  const lines = [
    `port ${port}`,
    `tls-port ${port + 1}`,
    `tls-cert-file ${cert}`,
    `tls-key-file ${key}`,
    "tls-auth-clients no",
    `tls-ca-cert-file ${cert}`,
    "bind * -::*",
    "protected-mode no",
    'save ""',
    `dir ${folder(lab, "redis")}`,
    "user alice on >secret ~* &* +@all",
    "user bob on >secret ~* &* +@all",
  ];
  return daemon(lab, ["redis-server", lab.file("redis.conf", `${lines.join("\n")}\n`)], { tcp: [port, port + 1] });
}

export function memcached(lab: Lab, port: number): Promise<Child> {
  return daemon(lab, ["memcached", "-u", "root", "-p", String(port), "-l", "::"], { tcp: [port] });
}

/** squid, an open proxy that knows the names of `hosts` only (lines as in /etc/hosts). CONNECT goes to any port. */
export async function squid(lab: Lab, port: number, hosts: readonly string[]): Promise<Child> {
  const home = folder(lab, "squid", await uidOf(lab, "proxy"));
  const lines = [
    `http_port ${port}`,
    "http_access allow all",
    `hosts_file ${lab.file("squid-hosts", `${hosts.join("\n")}\n`)}`,
    "dns_nameservers 127.0.0.1",
    "dns_timeout 1 seconds",
    "cache deny all",
    "access_log none",
    `cache_log ${home}/cache.log`,
    `coredump_dir ${home}`,
    `pid_filename ${home}/pid`,
    "pinger_enable off",
    "shutdown_lifetime 1 seconds",
    "max_filedescriptors 1024",
  ];
  return daemon(lab, ["squid", "-N", "-f", lab.file("squid.conf", `${lines.join("\n")}\n`)], { tcp: [port] });
}
