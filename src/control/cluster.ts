import type { Logger } from "pino";
import type { Ip } from "../base/address.ts";
import { messageOf } from "../base/fault.ts";
import type { ClusterSettings } from "../inputs/config/settings.ts";
import type { Cluster } from "../inputs/kubernetes/types.ts";
import type { Snapshot } from "../model/snapshot.ts";
import { ClusterNode, type NodeFacts, type PodLocator } from "./cluster-node.ts";
import { ClusterStores } from "./cluster-stores.ts";
import { Feedback } from "./feedback.ts";
import { type KeptResult, KeptWriter, readKept } from "./kept.ts";
import { originOf, PolicyMaps } from "./policy-maps.ts";
import type { Applied, Inputs, InputSource } from "./source.ts";

export interface ClusterSourceOptions {
  readonly cluster: Cluster;
  readonly settings: ClusterSettings;
  readonly node: string;
  /** ClusterEgressPolicies count only in ConfigMaps of this namespace. */
  readonly clusterNamespace: string;
  readonly locator: PodLocator;
  /** The index of the interface by which packets to this address leave the node. */
  readonly routeTo: (address: Ip) => number | undefined;
  /** Looks at the node. */
  readonly facts: () => NodeFacts;
  readonly state: string;
  readonly boot: string;
  readonly nowMs: () => number;
  readonly log: Logger;
}

/** A pod whose interface has not been found is looked for this often, milliseconds. */
const LATER_MS = 250;
/** How often the node's own addresses and resolv.conf are looked at, and interfaces where some pod's has not been found. */
const FACTS_MS = 10_000;
/** The same where all were found: one may be another by now, though nobody said anything. */
const LOOK_AGAIN_MS = 30_000;
/** The state on disk is this much behind at most. */
const SAVE_MS = 1000;
const TAINT_AGAIN_MS = 5000;

/** Pods and policies of the Kubernetes API, with the last good state for while it is away. */
export function clusterSource(options: ClusterSourceOptions): InputSource {
  const { cluster, settings, node, log, nowMs } = options;
  const { startup } = settings;
  let changed: () => void = () => undefined;
  /** A change has been told and not been read yet. */
  let told = false;
  let lookAgain = false;
  const tell = (): void => {
    if (told) return;
    told = true;
    changed();
  };
  const stores = new ClusterStores(cluster, settings, node, () => {
    if (stores.synced) tell();
    settle();
  });
  const view = new ClusterNode(settings, options.locator);
  // What waits and is looked at again goes by a clock that nobody sets.
  const steadyMs = (): number => performance.now();
  const policies = new PolicyMaps(options.clusterNamespace, steadyMs);
  const feedback = new Feedback({ cluster, node, nowMs, log: (detail, message) => log.warn(detail, message) });
  const writer = new KeptWriter(options.state, node, options.boot);
  const timers: NodeJS.Timeout[] = [];
  let facts = options.facts();
  let unsaved: Snapshot | undefined;
  let fresh = false;
  /** The API has had its time. */
  let waited = false;
  let kept: KeptResult | "unread" = "unread";
  let settle: () => void = () => undefined;
  let soon: NodeJS.Timeout | undefined;
  let saving: NodeJS.Timeout | undefined;

  /** Reads again in a moment, while a pod's interface has not been found or a policy waits for its turn. */
  const readSoon = (): void => {
    if (!view.incomplete && !policies.deferred) return;
    soon ??= setTimeout(() => {
      soon = undefined;
      if (view.incomplete) lookAgain = true;
      tell();
    }, LATER_MS);
  };

  /** Why there is no list yet, as far as that is known. */
  const trouble = (): string => {
    const failed = stores.health(nowMs()).find(({ synced, error }) => !synced && error !== undefined);
    return failed === undefined ? "" : ` (${failed.resource}: ${failed.error})`;
  };

  /** What to enforce before anything could be listed. */
  const meanwhile = (): Inputs => {
    if (waited) {
      if (kept === "unread") {
        kept = readKept(options.state, node, options.boot);
        if (kept !== undefined && "refused" in kept) log.error({ why: kept.refused }, "the last good state cannot be used");
      }
      if (kept !== undefined && "snapshot" in kept) {
        const since = new Date(kept.savedMs).toISOString();
        return {
          kind: "kept",
          snapshot: kept.snapshot,
          outside: [],
          why: `the Kubernetes API does not answer: the state of ${since} is enforced${trouble()}`,
        };
      }
    }
    if (fresh && startup.holdUnknownPods && facts.prefixes.length > 0) {
      const snapshot = {
        policies: [],
        pods: [],
        resolvers: [],
        namespaces: {},
        interfacePrefixes: facts.prefixes,
        starting: true,
      };
      return {
        kind: "kept",
        snapshot,
        outside: [],
        why: `nothing has been read from the Kubernetes API yet: new connections of pods wait${waited ? trouble() : ""}`,
      };
    }
    return { kind: "nothing", why: `nothing has been read from the Kubernetes API yet${trouble()}` };
  };

  const save = (): void => {
    saving = undefined;
    if (unsaved === undefined) return;
    const why = writer.write(unsaved, nowMs());
    unsaved = undefined;
    if (why !== undefined)
      log.warn({ why }, "the last good state cannot be written; a restart without the API would start from an older one");
  };

  let taint = startup.taint;
  let taintAskedMs = Number.NEGATIVE_INFINITY;
  const untaint = (): void => {
    if (taint === undefined || steadyMs() - taintAskedMs < TAINT_AGAIN_MS) return;
    taintAskedMs = steadyMs();
    void cluster.removeTaint(node, taint).then((outcome) => {
      if (outcome.ok) taint = undefined;
      else log.warn({ error: messageOf(outcome.fault) }, "the start-up taint could not be removed; it is tried again");
      if (outcome.ok && outcome.value === "removed") log.info({ taint: startup.taint }, "start-up taint removed");
    });
  };

  return {
    begin: async (isFresh) => {
      fresh = isFresh;
      stores.start();
      const wait = new Promise<void>((resolve) => {
        settle = () => {
          if (stores.synced) resolve();
        };
        timers.push(
          setTimeout(() => {
            waited = true;
            resolve();
            if (!stores.synced) tell();
          }, startup.apiWaitMs),
        );
      });
      // Without rules of an earlier agent the kernel lets everything go: it is told to wait before anybody is asked.
      if (!(fresh && startup.holdUnknownPods)) await wait;
    },
    read: () => {
      told = false;
      if (!stores.synced) return meanwhile();
      const { node: found, outside } = view.build(
        { pods: stores.pods.items.values(), namespaces: stores.namespaceLabels, services: stores.dnsServices, facts },
        steadyMs(),
        lookAgain,
      );
      lookAgain = false;
      const read = policies.read(stores.policyMaps.items.values());
      readSoon();
      return { kind: "read", policies: read, pods: { pods: found, problems: [] }, outside };
    },
    finish: (snapshot) =>
      // Monitor stops nothing and Discover touches nothing: only Enforce keeps a pod waiting that nobody knows.
      snapshot.policies.some(({ mode }) => mode === "Enforce") ? snapshot : { ...snapshot, interfacePrefixes: [] },
    watch: (call) => {
      changed = call;
      if (told) call();
      timers.push(
        setInterval(() => {
          const before = facts;
          facts = options.facts();
          if (facts === before && !(stores.synced && view.unfound)) return;
          lookAgain = true;
          tell(); // before the lists too: another prefix may be there, whose pods are to wait
        }, FACTS_MS),
        setInterval(() => {
          lookAgain = true;
          if (stores.synced) tell();
        }, LOOK_AGAIN_MS),
      );
    },
    close: () => {
      for (const timer of [...timers, soon, saving]) clearTimeout(timer);
      feedback.close();
      save();
      stores.stop();
      cluster.close();
    },
    lookTwiceMs: undefined,
    health: (now) => stores.health(now),
    origin: (file) => originOf(file, stores.policyMaps.items),
    strange: (source, index) => {
      // The node itself sends it there: so the address is of what is behind that interface, whoever that is.
      if (options.routeTo(source) !== index || !view.seen(source, index, steadyMs())) return;
      lookAgain = true;
      if (stores.synced) tell();
    },
    applied: ({ ready, snapshot, states, loose }: Applied) => {
      unsaved = snapshot;
      saving ??= setTimeout(save, SAVE_MS);
      if (ready) untaint();
      if (settings.kubernetesEvents) void feedback.tell([...stores.policyMaps.items.values()], states, loose);
    },
    resolverHint: "no DNS Service was found; name servers under `resolvers:` in the file of --config",
  };
}
