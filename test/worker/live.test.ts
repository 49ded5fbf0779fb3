import assert from "node:assert/strict";
import { test } from "node:test";
import type { RawSender } from "../../src/base/addon.ts";
import type { ConntrackEntry } from "../../src/firewall/conntrack.ts";
import { newEntry } from "../../src/firewall/conntrack-entry.ts";
import { VerdictClass } from "../../src/model/verdict.ts";
import { type Rulebook, rulebook } from "../../src/worker/guard.ts";
import { Live } from "../../src/worker/live.ts";
import { GuardedPod } from "../../src/worker/pods.ts";
import { LIMITS_DEFAULT } from "../../src/worker/protocol.ts";
import { desk, ip, MARKS, podOf, policyOf, RESOLVER } from "./desk.ts";

test("a connection to a server that is a resolver no longer does not go on as one", () => {
  const it = desk();
  const attachment = { kind: "routed", interface: "cali1", index: 7 } as const;
  const pod = podOf("checkout", ["10.0.0.1", "fd00::1"], "cali1");
  const book = rulebook([policyOf("p", "Enforce")]) as Rulebook;
  it.context.pods.set(new GuardedPod(pod, book, attachment, it.kernel, LIMITS_DEFAULT));
  const live = new Live(it.context, {} as RawSender, () => undefined);
  const removed: number[] = [];
  Object.assign(live, { changes: { count: 0, setMark: () => 0, remove: (_: unknown, id: number) => removed.push(id) } });
  const entry = (id: number, source: string, destination: string, protocol: number, verdict: number): ConntrackEntry => ({
    ...newEntry(),
    id,
    protocol,
    origSource: ip(source),
    origDestination: ip(destination),
    origDestinationPort: 53,
    mark: MARKS.value(verdict),
  });
  live.keepAll([
    { ...entry(1, "10.0.0.1", "10.96.0.10", 17, VerdictClass.dns), origDestination: RESOLVER },
    entry(2, "10.0.0.1", "203.0.113.53", 17, VerdictClass.dns),
    entry(3, "fd00::1", "2001:db8::53", 6, VerdictClass.dns),
    entry(4, "10.0.0.1", "203.0.113.53", 17, VerdictClass.pass),
    entry(5, "10.0.0.9", "203.0.113.53", 17, VerdictClass.dns),
  ]);
  assert.deepEqual(removed, [2, 3]);
});
