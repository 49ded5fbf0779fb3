import { test } from "node:test";
import { mariadb, postgresql } from "../support/daemons.ts";
import { SVC, trial } from "../support/trial.ts";

const SELECT = "select 'an' || 'swer'";
const PSQL = { PGPASSWORD: "secret", PGCONNECT_TIMEOUT: "8" };

test("psql and PostgreSQL 15", async (t) => {
  const it = await trial(t, ["psql", "setpriv", "/usr/lib/postgresql/15/bin/postgres"]);
  if (it === undefined) return;
  await postgresql(it.lab, 5432);
  const psql = (user: string, sslmode: string, more = ""): string[] => [
    "psql",
    "-XAtc",
    SELECT,
    `host=${SVC} user=${user} dbname=shop sslmode=${sslmode} ${more}`,
  ];
  const rule = { application: "postgresql", port: 5432 };

  await t.test("plain, with SCRAM: user and database are told", async () => {
    await it.rules(rule);
    const fields = { user: "alice", database: "shop" };
    await it.shows(psql("alice", "disable"), /^answer$/m, { application: "postgresql", fields }, { env: PSQL });
  });

  await t.test("SSL that the server takes: the server name is told", async () => {
    await it.rules(rule);
    const shown = { application: "postgresql", upgrade: "tls", serverName: SVC };
    await it.shows(psql("alice", "require"), /^answer$/m, shown, { env: PSQL });
    await it.passes(psql("alice", "prefer"), /^answer$/m, { env: PSQL });
    await it.passes(psql("alice", "require", "sslsni=0"), /^answer$/m, { env: PSQL });
  });

  await t.test("a cancel request is PostgreSQL too", async () => {
    await it.rules(rule);
    const cancelled = [
      "timeout",
      "-s",
      "INT",
      "1",
      "psql",
      "-XAtc",
      "select pg_sleep(8)",
      `host=${SVC} user=alice dbname=shop sslmode=disable`,
    ];
    await it.passes(cancelled, /canceling statement due to user request/, { env: PSQL });
  });

  await t.test("the rule's user only, where it can be seen", async () => {
    await it.rules({ ...rule, postgresql: { users: ["alice"] } });
    await it.passes(psql("alice", "disable"), /^answer$/m, { env: PSQL });
    await it.denied(
      psql("bob", "disable"),
      /^answer$/m,
      "wrong-identity",
      { application: "postgresql", fields: { user: "bob" } },
      { env: PSQL },
    );
    await it.denied(psql("alice", "require"), /^answer$/m, "wrong-identity", { upgrade: "tls" }, { env: PSQL });
  });

  await t.test("another server name in the TLS inside", async () => {
    await it.rules({ ...rule, names: [SVC] });
    const address = ["psql", "-XAtc", SELECT, `host=evil.example.net hostaddr=198.51.100.10 user=alice dbname=shop sslmode=require`];
    await it.run(["getent", "ahosts", SVC]);
    await it.denied(address, /^answer$/m, "wrong-server-name", { serverName: "evil.example.net", upgrade: "tls" }, { env: PSQL });
  });

  await t.test("a rule for another protocol", async () => {
    for (const application of ["mysql", "tls", "http", "redis"]) {
      await it.rules({ application, port: 5432 });
      for (const mode of ["disable", "require"]) {
        await it.denied(psql("alice", mode), /^answer$/m, "wrong-protocol", { application: "postgresql" }, { env: PSQL });
      }
    }
  });
});

test("mariadb and MariaDB", async (t) => {
  const it = await trial(t, ["mariadb", "mariadbd", "mariadb-install-db"]);
  if (it === undefined) return;
  await mariadb(it.lab, 3306);
  const client = (user: string, ...more: string[]): string[] => [
    "mariadb",
    "--no-defaults",
    `--host=${SVC}`,
    `--user=${user}`,
    "--password=secret",
    "--connect-timeout=8",
    ...more,
    "-NBe",
    "select concat('an', 'swer')",
    "shop",
  ];
  const says = /^answer$/m;
  const rule = { application: "mysql", port: 3306 };

  await t.test("plain: user and database are told", async () => {
    await it.rules(rule);
    await it.shows(client("alice", "--skip-ssl"), says, { application: "mysql", fields: { user: "alice", database: "shop" } });
  });

  await t.test("TLS inside", async () => {
    await it.rules(rule);
    await it.shows(client("alice", "--ssl"), says, { application: "mysql", upgrade: "tls" });
  });

  await t.test("the rule's user only", async () => {
    await it.rules({ ...rule, mysql: { users: ["alice"] } });
    await it.passes(client("alice", "--skip-ssl"), says);
    await it.denied(client("bob", "--skip-ssl"), says, "wrong-identity", { application: "mysql", fields: { user: "bob" } });
  });

  await t.test("a rule for another protocol", async () => {
    for (const application of ["postgresql", "tls", "ssh"]) {
      await it.rules({ application, port: 3306 });
      for (const mode of ["--skip-ssl", "--ssl"]) await it.denied(client("alice", mode), says, "wrong-protocol");
    }
  });
});
