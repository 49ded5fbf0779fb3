import { test } from "node:test";
import { mosquitto, nats, slapd, sshd } from "../support/daemons-msg.ts";
import { SVC, trial } from "../support/trial.ts";

const EVIL = "evil.example.net";

test("mosquitto_pub and mosquitto", async (t) => {
  const it = await trial(t, ["mosquitto", "mosquitto_pub"]);
  if (it === undefined) return;
  await mosquitto(it.lab, 1883);
  const pub = (id: string, ...more: string[]): string[] => [
    "mosquitto_pub",
    "-d",
    "-h",
    SVC,
    "-i",
    id,
    "-t",
    "topic",
    "-m",
    "text",
    "-q",
    "1",
    ...more,
  ];
  const says = /received PUBACK/;
  const rule = { application: "mqtt", port: 1883 };

  await t.test("MQTT 3.1.1 and 5: the client id is told", async () => {
    for (const version of ["mqttv311", "mqttv5"]) {
      await it.rules(rule);
      await it.shows(pub("till-1", "-V", version), says, { application: "mqtt", fields: { clientId: "till-1" } });
    }
  });

  await t.test("the rule's client id only", async () => {
    await it.rules({ ...rule, mqtt: { clientIds: ["till-*"] } });
    await it.passes(pub("till-2"), says);
    await it.denied(pub("thief"), says, "wrong-identity", { application: "mqtt", fields: { clientId: "thief" } });
  });

  await t.test("TLS around it", async () => {
    const tls = pub("till-1", "-p", "1884", "--insecure", "--cafile", `${it.lab.dir}/tls.crt`);
    await it.rules({ application: "tls", port: 1884 });
    await it.shows(tls, says, { application: "tls", serverName: SVC });
    await it.denied(pub("till-1", "-p", "1884"), says, "wrong-protocol", { application: "mqtt" });
    await it.rules({ application: "mqtt", port: 1884 });
    await it.denied(tls, says, "wrong-protocol", { application: "tls" });
    // ALPN says that it is MQTT.
    await it.passes([...tls, "--tls-alpn", "mqtt"], says);
  });

  await t.test("a rule for another protocol", async () => {
    for (const application of ["amqp", "http", "tls", "smtp"]) {
      await it.rules({ application, port: 1883 });
      await it.denied(pub("till-1"), says, "wrong-protocol", { application: "mqtt" });
    }
  });
});

test("ssh and sshd", async (t) => {
  const it = await trial(t, ["ssh", "ssh-keygen", "/usr/sbin/sshd"]);
  if (it === undefined) return;
  const { key } = await sshd(it.lab, 22);
  const known = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=8"];
  const ssh = ["ssh", "-F", "none", "-i", key, ...known, `root@${SVC}`];
  const says = /hello from sshd/;
  await it.rules({ application: "ssh", port: 22 });
  await it.shows(ssh, says, { application: "ssh", version: "2.0" });
  for (const application of ["tls", "ftp", "mysql"]) {
    await it.rules({ application, port: 22 });
    await it.denied(ssh, says, "wrong-protocol", { application: "ssh" });
  }
});

test("ldapsearch and slapd", async (t) => {
  const it = await trial(t, ["ldapsearch", "slapd"]);
  if (it === undefined) return;
  await slapd(it.lab, 389);
  const bind = ["-D", "cn=alice,dc=example,dc=com", "-w", "secret"];
  const search = (name: string, ...more: string[]): string[] => [
    "ldapsearch",
    "-x",
    "-H",
    `ldap://${name}`,
    "-b",
    "",
    "-s",
    "base",
    ...more,
    "supportedLDAPVersion",
  ];
  const env = { LDAPTLS_REQCERT: "never", LDAPNOINIT: "1" };
  const says = /supportedLDAPVersion: 3/;
  const rule = { application: "ldap", port: 389 };

  await t.test("anonymous, and with a name", async () => {
    await it.rules(rule);
    await it.shows(search(SVC), says, { application: "ldap" }, { env });
    await it.rules(rule);
    await it.shows(search(SVC, ...bind), says, { application: "ldap", fields: { user: "cn=alice,dc=example,dc=com" } }, { env });
  });

  await t.test("StartTLS", async () => {
    await it.rules(rule);
    await it.shows(search(SVC, "-ZZ"), says, { application: "ldap", upgrade: "tls" }, { env: { LDAPTLS_REQCERT: "never" } });
  });

  await t.test("a rule for another protocol", async () => {
    for (const application of ["snmp", "kerberos", "tls"]) {
      await it.rules({ application, port: 389 });
      for (const more of [[], ["-ZZ"]]) {
        await it.denied(search(SVC, ...more), says, "wrong-protocol", { application: "ldap" }, { env: { LDAPTLS_REQCERT: "never" } });
      }
    }
  });
});

/** A NATS client as its documentation describes one: `argv` = host, server name or nothing; prints what PING gives. */
const NATS = `
import { connect } from "node:net";
import { connect as secure } from "node:tls";
const [host, servername] = process.argv.slice(2);
const fail = (error) => { console.error(error.code ?? error.message); process.exit(1); };
const speak = (socket) => {
  socket.on("error", fail).on("close", () => process.exit(1));
  socket.on("data", (bytes) => { if (/PONG/.test(bytes)) { console.log("answer " + bytes); process.exit(0); } });
  const options = { verbose: false, pedantic: false, tls_required: servername !== undefined, name: "till", user: "alice", lang: "node", version: "2" };
  socket.write("CONNECT " + JSON.stringify(options) + "\\r\\nPING\\r\\n");
};
const plain = connect(4222, host).on("error", fail).on("close", () => process.exit(1));
plain.once("data", (info) => {
  if (!/^INFO /.test(info)) fail(new Error("no INFO"));
  if (servername === undefined) speak(plain);
  else { const tls = secure({ socket: plain, servername, rejectUnauthorized: false }, () => speak(tls)).on("error", fail); }
});
`;

test("a NATS client and nats-server", async (t) => {
  const it = await trial(t, ["nats-server"]);
  if (it === undefined) return;
  await nats(it.lab, 4222);
  const client = (...more: string[]): string[] => [process.execPath, it.lab.file("nats.mjs", NATS), SVC, ...more];
  const says = /answer .*PONG/;
  const rule = { application: "nats", port: 4222 };
  await it.rules(rule);
  await it.shows(client(), says, { application: "nats", upgrade: undefined, fields: { user: "alice" } });
  await it.rules(rule);
  await it.shows(client(SVC), says, { application: "nats", upgrade: "tls", serverName: SVC });
  await it.denied(client(EVIL), says, "wrong-server-name", { application: "nats", serverName: EVIL });
  for (const application of ["smtp", "tls", "redis"]) {
    // After the server's INFO the first that this client says is a ClientHello: to a rule for TLS it is TLS.
    for (const more of application === "tls" ? [[]] : [[], [SVC]]) {
      await it.rules({ application, port: 4222 });
      await it.denied(client(...more), says, "wrong-protocol", { application: "nats" });
    }
  }
});
