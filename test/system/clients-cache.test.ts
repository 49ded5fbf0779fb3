import { test } from "node:test";
import { memcached, redis } from "../support/daemons.ts";
import { SVC, trial } from "../support/trial.ts";

test("redis-cli and Redis", async (t) => {
  const it = await trial(t, ["redis-cli", "redis-server"]);
  if (it === undefined) return;
  await redis(it.lab, 6379);
  const rule = { application: "redis", port: 6379 };
  const cli = (user: string, ...more: string[]): string[] => {
    const login = user === "default" ? [] : ["--user", user, "--pass", "secret", "--no-auth-warning"];
    return ["redis-cli", "-h", SVC, "-p", "6379", ...login, ...more];
  };
  const echo = ["echo", "an answer"];
  const says = /an answer/;

  await t.test("without a user, and with one", async () => {
    await it.rules(rule);
    await it.shows(cli("default", ...echo), says, { application: "redis", serverName: undefined });
    await it.rules(rule);
    await it.shows(cli("alice", ...echo), says, { application: "redis", fields: { user: "alice" } });
    await it.passes(cli("alice", "-3", ...echo), says); // RESP3: HELLO
    await it.passes(cli("alice", "-n", "3", ...echo), says);
  });

  await t.test("the rule's user only", async () => {
    await it.rules({ ...rule, redis: { users: ["alice"] } });
    await it.passes(cli("alice", ...echo), says);
    await it.denied(cli("bob", ...echo), says, "wrong-identity", { application: "redis", fields: { user: "bob" } });
    await it.denied(cli("default", ...echo), says, "wrong-identity", { application: "redis" });
  });

  await t.test("TLS around it says nothing of what is inside", async () => {
    const tls = ["redis-cli", "-h", SVC, "-p", "6380", "--tls", "--insecure", "--sni", SVC, ...echo];
    await it.rules({ application: "redis", port: 6380 });
    await it.denied(tls, says, "wrong-protocol", { application: "tls", serverName: SVC });
    await it.rules({ application: "redis", port: 6380, tls: { opaque: "Allow" } });
    await it.passes(tls, says);
    await it.rules({ application: "tls", port: 6380 });
    await it.passes(tls, says);
  });

  await t.test("a rule for another protocol", async () => {
    for (const application of ["memcached", "http", "tls", "mysql"]) {
      await it.rules({ application, port: 6379 });
      await it.denied(cli("alice", ...echo), says, "wrong-protocol", { application: "redis" });
    }
  });
});

/** `argv` = host, text or binary: says `STORED` or the status of the set. */
const MEMCACHE = `
import socket, struct, sys
s = socket.create_connection((sys.argv[1], 11211), timeout=8)
if sys.argv[2] == "text":
    s.sendall(b"set key 0 60 5\\r\\nhello\\r\\n")
    print(s.recv(100).decode())
else:
    s.sendall(struct.pack(">BBHBBHIIQII", 0x80, 1, 3, 8, 0, 0, 16, 7, 0, 0, 60) + b"keyhello")
    answer = s.recv(100)
    print("STORED" if answer[:2] == b"\\x81\\x01" and answer[6:8] == b"\\0\\0" else answer)
`;

test("memcached, text and binary", async (t) => {
  const it = await trial(t, ["memcached", "/usr/bin/python3"]);
  if (it === undefined) return;
  await memcached(it.lab, 11211);
  const script = it.lab.file("memcache.py", MEMCACHE);
  for (const kind of ["text", "binary"]) {
    const client = ["/usr/bin/python3", script, SVC, kind];
    await t.test(kind, async () => {
      await it.rules({ application: "memcached", port: 11211 });
      await it.shows(client, /STORED/, { application: "memcached" });
      for (const application of ["redis", "http", "tls"]) {
        await it.rules({ application, port: 11211 });
        await it.denied(client, /STORED/, "wrong-protocol", { application: "memcached" });
      }
    });
  }
});
