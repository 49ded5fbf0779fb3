import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { readCapture } from "../../src/capture/file.ts";
import { readFlows } from "../../src/capture/flows.ts";
import { inspect } from "../../src/inspect/registry.ts";
import { counts, type Doubt, nameRight, outcome, readCorpus, rows, table } from "./score.ts";

const fixtures = new URL("../../../test/capture/fixtures/", import.meta.url);

test("fixtures: a server name split over segments and over records is read; PostgreSQL is not TLS", () => {
  const first = (name: string): Uint8Array => {
    const client = readFlows(readCapture(readFileSync(new URL(name, fixtures)))).connections[0]?.fromClient;
    return client?.bytes.subarray(client.start, client.end) ?? new Uint8Array(0);
  };
  for (const name of ["tls_ch_split_inside_sni.pcap", "tls_record_fragmented_2.pcap"]) {
    const bytes = first(name);
    const r = inspect("tls", bytes, 0, bytes.length, 6);
    assert.equal("serverName" in r ? r.serverName : JSON.stringify(r), "split.example.com", name);
  }
  const bytes = first("pg_node_sslrequest_then_tls.pcap");
  assert.ok(bytes.length > 8 && "bad" in inspect("tls", bytes, 0, bytes.length, 6));
});

/** Labels that are wrong, or that say less than the bytes. */
const DOUBTS: readonly Doubt[] = [
  {
    flow: "zeek__postgresql__http-on-port-5432.pcap 141.142.228.5:59856",
    says: "http1",
    why: "the label is the file's folder; the client sends a GET of Wget",
  },
  {
    flow: "suricata-verify__http2-deflate__http2_deflate.pcap 127.0.0.1:61321",
    says: "http1",
    why: "the first protocol is HTTP/1.1 with Upgrade: h2c; most servers do not take it, and the client's bytes alone cannot tell",
  },
  { flow: "grpc_js_unary.pcap 127.0.0.1:40410", says: "http2", why: "there is no server: the client sent its preface and SETTINGS only" },
  { flow: "etcd_v3_put_get_watch.pcap 127.0.0.1:50662", says: "http2", why: "preface and SETTINGS only, no request" },
  {
    flow: "nDPI__smbv1.pcap 172.16.156.130:50927",
    says: "smb",
    why: "port 445 without a NetBIOS session request: only the four octets of length are NetBIOS, what they hold is an SMB 1 negotiation",
  },
  {
    flow: "tcpdump__dns_fwdptr.pcap 156.118.17.235:53",
    says: null,
    why: "63 KB of pointers, not one whole name: no message can be read from it",
  },
  { flow: "tcpdump__dns-zlip-1.pcap 10.0.0.1:1024", says: null, why: "its UDP header says that it is empty" },
  ...["34218", "34070", "37614", "41420", "58388"].map((port) => ({
    flow: `nDPI__jabber.pcap 192.168.2.100:${port}`,
    says: null,
    why: "binary messages with lengths, no XML: the port is XMPP's, the protocol is not",
  })),
];

const IDENTIFIED_PERCENT = 97;
const WRONG_MAX = 0; // among `agreed` labels
const TLS_NAMES_MISSED_MAX = 0; // of TLS, QUIC and DTLS

const corpus = process.env["NAMEGATE_CORPUS"];
test("corpus: what is identified, what is wrong, which names are right", {
  skip: corpus === undefined ? "NAMEGATE_CORPUS is not set" : false,
}, (t) => {
  const scored = readCorpus(corpus ?? "");
  t.diagnostic(`\n${table(rows(scored, DOUBTS, ({ label }) => label.l7 ?? ""))}`);
  t.diagnostic(`\n${table(rows(scored, DOUBTS, ({ label }) => label.status))}`);
  const total = rows(scored, DOUBTS, () => "all");
  t.diagnostic(`\n${table(total)}`);

  const text = ({ file, label, line }: (typeof scored)[number]): string =>
    `${file} ${label.client}: ${label.l7} ${label.server_name}, said ${line?.application} ${line?.serverName}`;
  const wrong = scored.filter((one) => counts(one) && one.label.status === "agreed" && outcome(one, DOUBTS) === "wrong").map(text);
  assert.ok(wrong.length <= WRONG_MAX, wrong.join("\n"));
  const carriers = ["tls", "quic", "dtls"];
  const names = scored.filter((one) => counts(one) && carriers.includes(one.label.l7 ?? "") && nameRight(one) === false).map(text);
  assert.ok(names.length <= TLS_NAMES_MISSED_MAX, names.join("\n"));
  const [, all] = total[0] ?? [];
  assert.ok(all !== undefined && (all.right / all.flows) * 100 >= IDENTIFIED_PERCENT, "too few are identified");
});
