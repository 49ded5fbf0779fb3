import { hostname } from "node:os";
import type { Logger } from "pino";
import { Locator } from "../attach/locator.ts";
import { NodeNetwork } from "../attach/network.ts";
import { addon, NetlinkProtocol } from "../base/addon.ts";
import { Fault } from "../base/fault.ts";
import { clusterSource } from "../control/cluster.ts";
import { bootId } from "../control/kept.ts";
import { nodeFacts } from "../control/node-facts.ts";
import type { InputSource } from "../control/source.ts";
import type { ClusterSettings } from "../inputs/config/settings.ts";
import { openCluster } from "../inputs/kubernetes/cluster.ts";

/** The API server and what names this node. Loaded only where there is a cluster. Throws a Fault that says what is missing. */
export async function openClusterSource(
  settings: ClusterSettings,
  namespace: string | undefined,
  state: string,
  log: Logger,
): Promise<InputSource> {
  const node = settings.nodeName ?? process.env["NODE_NAME"] ?? "";
  if (!/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(node))
    throw new Fault(
      "node-name",
      node === "" ? "the name of this node is not known: NODE_NAME is not set" : `${JSON.stringify(node)} is not the name of a node`,
      `set NODE_NAME to the Node's name (in a pod: fieldRef spec.nodeName; here it may be ${JSON.stringify(hostname())}), or nodeName in the file of --config; without a cluster: --policies DIR --pods FILE`,
    );
  if (namespace === undefined)
    throw new Fault(
      "cluster-namespace",
      "it is not known which namespace may hold ClusterEgressPolicies: POD_NAMESPACE is not set",
      "set POD_NAMESPACE (in a pod: fieldRef metadata.namespace), or --cluster-namespace NAME",
    );
  const cluster = await openCluster({
    env: process.env,
    now: Date.now,
    ...(settings.kubeconfig === undefined ? {} : { kubeconfig: settings.kubeconfig }),
  });
  log.info({ server: cluster.server, credentials: cluster.source, node }, "pods and policies come from the Kubernetes API");
  const network = new NodeNetwork(new (addon().NetlinkSocket)({ protocol: NetlinkProtocol.route }));
  return clusterSource({
    ...{ cluster, settings, node, state, log },
    clusterNamespace: namespace,
    locator: new Locator({ network }),
    facts: nodeFacts(settings, network, (why) => log.warn(why)),
    boot: bootId(),
    nowMs: Date.now,
  });
}
