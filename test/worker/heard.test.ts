import assert from "node:assert/strict";
import { test } from "node:test";
import { type Ip, ipText, parseIp } from "../../src/base/address.ts";
import { dnsName, type DnsName } from "../../src/base/name.ts";
import { Rcode } from "../../src/dns/message.ts";
import type { ReplyOutcome } from "../../src/dns/reply.ts";
import type { Learned } from "../../src/model/binding.ts";
import { HeardReplies } from "../../src/worker/heard.ts";

const RESOLVER = parseIp("10.96.0.10") as Ip;
const SEARCHES = ["shop.svc.cluster.local"];
const name = (text: string): DnsName => dnsName(text) as DnsName;
const outcome = (qname: string | undefined, kind: ReplyOutcome["kind"], rcode: number = Rcode.NOERROR): ReplyOutcome => ({
  kind,
  reason: undefined,
  id: 1,
  qname: qname === undefined ? undefined : name(qname),
  qtype: 1,
  rcode,
  tc: false,
  ech: false,
  answers: 1,
  addresses: 0,
  foreign: 0,
  unusable: 0,
  excess: 0,
});
const learned = (...names: string[]): Learned[] =>
  ["198.51.100.1", "198.51.100.2"].flatMap((address) =>
    names.map((one, i) => ({
      name: name(one),
      via: i === 0 ? ("asked" as const) : ("cname" as const),
      address: parseIp(address) as Ip,
      ttl: 30,
    })),
  );

test("the last answer about a name, with its chain, and what was said later without addresses", () => {
  const heard = new HeardReplies();
  heard.take(outcome("a.example", "learned"), learned("a.example", "b.example", "c.example"), RESOLVER, 100, SEARCHES);
  heard.take(outcome("a.example", "negative"), [], RESOLVER, 101, SEARCHES);
  const { answered, empty } = heard.get(name("a.example")) ?? {};
  assert.deepEqual(
    [answered?.at, answered?.ttl, answered?.chain, answered && ipText(answered.resolver)],
    [100, 30, ["b.example", "c.example"], "10.96.0.10"],
  );
  assert.deepEqual([empty?.at, empty?.rcode], [101, 0]);
  assert.deepEqual(heard.leadingTo(name("c.example")), ["a.example"]);
  heard.take(outcome("gone.example", "negative", Rcode.NXDOMAIN), [], RESOLVER, 102, SEARCHES);
  assert.equal(heard.get(name("gone.example"))?.empty?.rcode, Rcode.NXDOMAIN);
  heard.take(outcome("broken.example", "ignored", 2), [], RESOLVER, 103, SEARCHES);
  assert.equal(heard.get(name("broken.example"))?.empty?.rcode, 2);
});

test("what the search path makes, and what cannot be read, takes no room; the names asked for last are kept", () => {
  const heard = new HeardReplies();
  heard.take(outcome("a.example.shop.svc.cluster.local", "negative", Rcode.NXDOMAIN), [], RESOLVER, 1, SEARCHES);
  heard.take(outcome(undefined, "ignored"), [], RESOLVER, 1, SEARCHES);
  heard.take(outcome("bad.example", "malformed"), [], RESOLVER, 1, SEARCHES);
  assert.equal(heard.get(name("a.example.shop.svc.cluster.local")), undefined);
  assert.equal(heard.get(name("bad.example")), undefined);
  heard.take(outcome("db.shop.svc.cluster.local", "learned"), learned("db.shop.svc.cluster.local"), RESOLVER, 2, SEARCHES);
  assert.deepEqual(heard.get(name("db.shop.svc.cluster.local"))?.answered?.chain, []);
  for (let i = 0; i < 1000; i++) {
    heard.take(outcome(`n${i}.example`, "learned"), learned(`n${i}.example`), RESOLVER, i, SEARCHES);
    heard.take(outcome("often.example", "learned"), learned("often.example"), RESOLVER, i, SEARCHES);
  }
  assert.equal(heard.get(name("often.example"))?.answered?.at, 999);
  assert.equal(heard.get(name("n0.example")), undefined);
  assert.equal(Array.from({ length: 1000 }, (_, i) => heard.get(name(`n${i}.example`))).filter((one) => one !== undefined).length, 31);
});
