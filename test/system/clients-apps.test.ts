import { test } from "node:test";
import { SVC, trial, type Trial } from "../support/trial.ts";
import { wireServer, type WireServer } from "../support/wire-server.ts";

/** Client libraries of Debian's against listeners that say just enough. */
interface App {
  readonly port: number;
  /** Programs and files of the client. */
  readonly needs: readonly string[];
  /** `seconds`: it tries for so long. `who`: its client id, where it has one. */
  readonly client: (it: Trial, seconds: number, who?: string) => readonly string[];
  readonly says: RegExp;
  /** A rule's block that takes only `till`, and the field it is about. */
  readonly identity?: { readonly block: unknown; readonly field: string };
  readonly others: readonly string[];
}

const PYTHON = "/usr/bin/python3";
const library = (name: string): string => `/usr/lib/python3/dist-packages/${name}`;

const MONGO = `
import sys, pymongo
ms = 1000 * int(sys.argv[2])
client = pymongo.MongoClient(sys.argv[1], 27017, serverSelectionTimeoutMS=ms, connectTimeoutMS=ms)
try: print("answer", client.admin.command("ping")["ok"])
except pymongo.errors.ConnectionFailure as error: print(error)
`;
const CASSANDRA = `
import sys
from cassandra.cluster import Cluster
seconds = int(sys.argv[2])
try: Cluster([sys.argv[1]], protocol_version=4, connect_timeout=seconds, control_connection_timeout=seconds).connect()
except Exception as error: print(error)
`;

const APPS: Readonly<Record<WireServer, App>> = {
  kafka: {
    port: 9092,
    needs: ["kcat"],
    client: (_it, seconds, who = "till") => ["kcat", "-b", `${SVC}:9092`, "-L", "-m", String(seconds), "-X", `client.id=${who}`],
    says: /topic "orders" with 1 partitions/,
    identity: { block: { kafka: { clientIds: ["till"] } }, field: "clientId" },
    others: ["http", "tls", "mongodb"],
  },
  mongodb: {
    port: 27017,
    needs: [PYTHON, library("pymongo")],
    client: (it, seconds) => [PYTHON, it.lab.file("mongo.py", MONGO), SVC, String(seconds)],
    says: /^answer/m,
    others: ["http", "tls", "kafka"],
  },
  cassandra: {
    port: 9042,
    needs: [PYTHON, library("cassandra")],
    client: (it, seconds) => [PYTHON, it.lab.file("cassandra-client.py", CASSANDRA), SVC, String(seconds)],
    says: /words from the listener/,
    others: ["http", "tls", "kafka"],
  },
  amqp: {
    port: 5672,
    needs: ["amqp-publish"],
    client: () => ["sh", "-c", `amqp-publish -s ${SVC} -r orders -b text && echo published`],
    says: /published/,
    others: ["http", "tls", "mqtt"],
  },
};

for (const [application, app] of Object.entries(APPS)) {
  test(`${application}: a client library`, async (t) => {
    const it = await trial(t, app.needs);
    if (it === undefined) return;
    const { port, says } = app;
    await wireServer(it.lab, application as WireServer, port);
    const rule = { application, port };

    await t.test("its own rule", async () => {
      await it.rules(rule);
      await it.shows(app.client(it, 8), says, { application });
    });

    const { identity } = app;
    if (identity !== undefined) {
      await t.test("the rule's client only", async () => {
        await it.rules({ ...rule, ...(identity.block as object) });
        await it.passes(app.client(it, 8, "till"), says);
        await it.denied(app.client(it, 1, "thief"), says, "wrong-identity", { application, fields: { [identity.field]: "thief" } });
      });
    }

    await t.test("a rule for another protocol", async () => {
      for (const other of app.others) {
        await it.rules({ application: other, port });
        await it.denied(app.client(it, 1), says, "wrong-protocol", { application });
      }
    });
  });
}
