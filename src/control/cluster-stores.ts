import type { ClusterSettings } from "../inputs/config/settings.ts";
import {
  type DnsService,
  dnsServiceView,
  namespaceView,
  podView,
  type PodView,
  type PolicyMap,
  policyMapView,
} from "../inputs/kubernetes/objects.ts";
import { TextBudget } from "../inputs/kubernetes/text-budget.ts";
import type { Cluster, Reflector } from "../inputs/kubernetes/types.ts";
import type { Node } from "./source.ts";
import type { InputHealth } from "./source.ts";

/** Policy ConfigMaps of the whole cluster; more are refused and counted. */
const POLICY_MAPS_MAX = 10_000;
/** And of one namespace: a tenant's thousands must not keep out the others'. */
const POLICY_MAPS_IN_NAMESPACE_MAX = 1000;

/** What the agent watches: one list and one watch each. */
export class ClusterStores {
  readonly pods: Reflector<PodView>;
  private readonly namespaces: Reflector<Readonly<Record<string, string>>>;
  readonly policyMaps: Reflector<PolicyMap>;
  private readonly services: readonly Reflector<DnsService>[];
  private labels: Node["namespaces"] | undefined;

  constructor(cluster: Cluster, settings: ClusterSettings, node: string, onChange: () => void) {
    const budget = new TextBudget();
    const { resolvers } = settings;
    this.pods = cluster.reflect({ path: "/api/v1/pods", fieldSelector: `spec.nodeName=${node}`, project: podView, onChange });
    this.namespaces = cluster.reflect({
      path: "/api/v1/namespaces",
      project: namespaceView,
      onChange: () => {
        this.labels = undefined;
        onChange();
      },
    });
    this.policyMaps = cluster.reflect({
      path: "/api/v1/configmaps",
      labelSelector: settings.policySelector,
      project: (raw) => {
        const map = policyMapView(raw);
        return map === undefined ? undefined : budget.admit(map);
      },
      onChange: () => {
        budget.keep(this.policyMaps.items);
        onChange();
      },
      objectsMax: POLICY_MAPS_MAX,
      inNamespaceMax: POLICY_MAPS_IN_NAMESPACE_MAX,
      provisional: ({ refused }) => refused,
    });
    const wanted = resolvers.override === undefined ? resolvers.namespaces : [];
    this.services = wanted.map((namespace) =>
      cluster.reflect({
        path: `/api/v1/namespaces/${namespace}/services`,
        project: (raw) => dnsServiceView(raw, resolvers.services),
        onChange,
        optional: true,
      }),
    );
  }

  private get all(): readonly Reflector<unknown>[] {
    return [this.pods, this.namespaces, this.policyMaps, ...this.services];
  }

  start(): void {
    for (const reflector of this.all) reflector.start();
  }

  stop(): void {
    for (const reflector of this.all) reflector.stop();
  }

  /** Everything has been listed; of the DNS Services, everything that we may see. */
  get synced(): boolean {
    return (
      [this.pods, this.namespaces, this.policyMaps].every(({ synced }) => synced) &&
      this.services.every(({ synced, counters: { errors } }) => synced || (errors.forbidden ?? 0) + (errors["not-found"] ?? 0) > 0)
    );
  }

  /** Labels by namespace: the same object until one has changed. */
  get namespaceLabels(): Node["namespaces"] {
    this.labels ??= Object.assign(Object.create(null) as Record<string, Record<string, string>>, Object.fromEntries(this.namespaces.items));
    return this.labels;
  }

  get dnsServices(): DnsService[] {
    return this.services.flatMap(({ items }) => [...items.values()]);
  }

  health(nowMs: number): readonly InputHealth[] {
    const one = (resource: string, reflector: Reflector<unknown>): InputHealth => ({
      resource,
      synced: reflector.synced,
      staleMs: reflector.staleMs(nowMs),
      items: reflector.items.size,
      error: reflector.counters.lastError,
    });
    return [
      one("pods", this.pods),
      one("namespaces", this.namespaces),
      one("configmaps", this.policyMaps),
      ...this.services.map((reflector) => one(`services/${reflector.path.split("/")[4] ?? ""}`, reflector)),
    ];
  }
}
