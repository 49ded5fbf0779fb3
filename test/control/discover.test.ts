import assert from "node:assert/strict";
import { test } from "node:test";
import type { Ip } from "../../src/base/address.ts";
import { newPacket } from "../../src/capture/decode.ts";
import type { PassiveOptions, Seen } from "../../src/capture/passive.ts";
import { Discovery } from "../../src/control/discover.ts";
import { udpReply } from "../../src/dns/packets.ts";
import type { EventDraft } from "../../src/model/event.ts";
import { a, ask, encode } from "../dns/encode.ts";
import { datagram, ip, podOf, policyOf, RESOLVER, syn } from "../worker/desk.ts";

const POD = ip("10.0.0.1");
const API = ip("198.51.100.7");
const TRUSTED = [{ address: RESOLVER, port: 53 }];
const policies = [policyOf("p", "Discover")];

function capture() {
  const events: EventDraft[] = [];
  let passive: PassiveOptions | undefined;
  const discovery = new Discovery(
    (draft) => events.push(draft),
    () => undefined,
    () => 1_800_000_000_000,
    () => undefined,
    (options) => {
      passive = options;
      return { close: () => undefined, stats: () => ({ packets: 0, dropped: 0, skipped: 0, reopened: 0, open: true }) };
    },
  );
  const see = (bytes: Uint8Array, seen: Seen = "in"): void => passive?.onPacket(bytes, 0, bytes.length, 1_800_000_000_000, seen);
  return {
    discovery,
    see,
    said: () => events.splice(0).map(({ verdict, destination }) => `${verdict} ${destination?.address}:${destination?.port}`),
  };
}

/** api.example.com is API, says `server`. */
function reply(server: Ip): Uint8Array {
  const query = { ...newPacket(), source: POD, sourcePort: 40_000, destination: server, destinationPort: 53 };
  const dns = encode({ questions: ask("api.example.com"), answers: [a("api.example.com", [198, 51, 100, 7])] });
  return udpReply(query, dns) as Uint8Array;
}

test("only a trusted resolver teaches, as when it is enforced; what goes to another one is a connection", () => {
  const { discovery, see, said } = capture();
  discovery.set([{ pod: podOf("checkout", ["10.0.0.1"], "cali1"), policies }], TRUSTED);
  const other = ip("203.0.113.53");
  see(datagram(POD, RESOLVER, 53));
  see(datagram(POD, other, 53));
  see(reply(other), "out");
  see(syn(POD, API, 443));
  assert.deepEqual(said(), ["would-deny 203.0.113.53:53", "would-deny 198.51.100.7:443"]);
  see(reply(RESOLVER), "out");
  see(syn(POD, API, 443));
  assert.deepEqual(said(), ["allow 198.51.100.7:443"]);
});

test("what leaves the node, behind DNAT, is no connection of its own", () => {
  const { discovery, see, said } = capture();
  discovery.set([{ pod: podOf("checkout", ["10.0.0.1"], "cali1"), policies }], TRUSTED);
  see(datagram(POD, ip("10.0.9.9"), 53), "out");
  see(syn(POD, ip("10.0.9.9"), 8443), "out");
  assert.deepEqual(said(), []);
});

test("a pod of the same name is another pod: it does not know what the first one was told", () => {
  const { discovery, see, said } = capture();
  discovery.set([{ pod: podOf("checkout", ["10.0.0.1"], "cali1"), policies }], TRUSTED);
  see(reply(RESOLVER), "out");
  discovery.set([{ pod: podOf("checkout", ["10.0.0.1"], "cali1", "uid-2"), policies }], TRUSTED);
  see(syn(POD, API, 443));
  assert.deepEqual(said(), ["would-deny 198.51.100.7:443"]);
});
