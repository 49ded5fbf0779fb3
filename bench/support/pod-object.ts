/** A pod as a cluster has it. */
export interface PodObject {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly node: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly addresses: readonly string[];
}

/** The fields that one manager of an object owns (server-side apply), as `managedFields` lists them. */
function managed(manager: string, paths: readonly string[], subresource?: string): object {
  const fields: Record<string, object> = {};
  for (const path of paths) {
    let at = fields;
    for (const part of path.split(" ")) at = (at[part] ??= {}) as Record<string, object>;
  }
  const base = { manager, operation: "Update", apiVersion: "v1", time: "2026-05-04T08:00:00Z", fieldsType: "FieldsV1", fieldsV1: fields };
  return subresource === undefined ? base : { ...base, subresource };
}

const CONTAINER_FIELDS = [
  "env",
  "image",
  "imagePullPolicy",
  "livenessProbe f:httpGet f:path",
  "livenessProbe f:httpGet f:port",
  "livenessProbe f:periodSeconds",
]
  .concat(["name", "ports", "readinessProbe f:httpGet f:path", "readinessProbe f:httpGet f:port", "readinessProbe f:periodSeconds"])
  .concat(["resources f:limits f:memory", "resources f:requests f:cpu", "resources f:requests f:memory", "securityContext f:runAsNonRoot"])
  .concat(["terminationMessagePath", "terminationMessagePolicy", "volumeMounts"]);
const CONDITIONS = ["Initialized", "Ready", "ContainersReady", "PodScheduled"] as const;
const TIME = "2026-05-04T08:00:00Z";
const NAMES = ["app", "sidecar"] as const;

function container(name: string): object {
  const probe = (path: string): object => ({
    httpGet: { path, port: 8080, scheme: "HTTP" },
    initialDelaySeconds: 5,
    timeoutSeconds: 1,
    periodSeconds: 10,
    successThreshold: 1,
    failureThreshold: 3,
  });
  return {
    name,
    image: `registry.example.com/shop/${name}:2026-05-04.1`,
    ports: [{ name: "http", containerPort: 8080, protocol: "TCP" }],
    env: Array.from({ length: 12 }, (_, i) => ({ name: `SETTING_${i}`, value: `value-of-the-setting-${i}` })),
    resources: { limits: { memory: "512Mi" }, requests: { cpu: "100m", memory: "256Mi" } },
    volumeMounts: [
      { name: "config", mountPath: "/etc/app" },
      { name: "kube-api-access-x7k2p", readOnly: true, mountPath: "/var/run/secrets/kubernetes.io/serviceaccount" },
    ],
    livenessProbe: probe("/healthz"),
    readinessProbe: probe("/readyz"),
    terminationMessagePath: "/dev/termination-log",
    terminationMessagePolicy: "File",
    imagePullPolicy: "IfNotPresent",
    securityContext: { runAsNonRoot: true },
  };
}

/**
 * A running pod of a Deployment, two containers with probes and a dozen settings each, and what API server, scheduler and kubelet add:
 * some 8 KB of JSON. Agents see as much of every pod of their node each time it changes.
 */
export function podObject({ namespace, name, uid, node, labels, addresses }: PodObject): Record<string, unknown> & { metadata: object } {
  const fields = NAMES.flatMap((one) => CONTAINER_FIELDS.map((field) => `f:spec f:containers k:{"name":"${one}"} f:${field}`));
  const conditions = CONDITIONS.flatMap((type) =>
    ["lastProbeTime", "lastTransitionTime", "status", "type"].map((field) => `f:status f:conditions k:{"type":"${type}"} f:${field}`),
  );
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace,
      uid,
      labels,
      generateName: "checkout-5d4f8c9b7-",
      creationTimestamp: TIME,
      annotations: { "prometheus.io/scrape": "true", "prometheus.io/port": "8080", "checksum/config": "a".repeat(64) },
      ownerReferences: [
        { apiVersion: "apps/v1", kind: "ReplicaSet", name: "checkout-5d4f8c9b7", uid, controller: true, blockOwnerDeletion: true },
      ],
      managedFields: [
        managed("kube-controller-manager", ["f:metadata f:annotations", "f:metadata f:labels", "f:metadata f:ownerReferences", ...fields]),
        managed(
          "kubelet",
          [...conditions, "f:status f:containerStatuses", "f:status f:hostIP", "f:status f:phase", "f:status f:podIPs"],
          "status",
        ),
      ],
    },
    spec: {
      volumes: [
        { name: "config", configMap: { name: "checkout", defaultMode: 420 } },
        {
          name: "kube-api-access-x7k2p",
          projected: {
            sources: [
              { serviceAccountToken: { expirationSeconds: 3607, path: "token" } },
              { configMap: { name: "kube-root-ca.crt", items: [{ key: "ca.crt", path: "ca.crt" }] } },
              { downwardAPI: { items: [{ path: "namespace", fieldRef: { apiVersion: "v1", fieldPath: "metadata.namespace" } }] } },
            ],
            defaultMode: 420,
          },
        },
      ],
      containers: NAMES.map(container),
      restartPolicy: "Always",
      terminationGracePeriodSeconds: 30,
      dnsPolicy: "ClusterFirst",
      serviceAccountName: "checkout",
      serviceAccount: "checkout",
      nodeName: node,
      securityContext: { fsGroup: 1000 },
      schedulerName: "default-scheduler",
      tolerations: ["not-ready", "unreachable"].map((key) => ({
        key: `node.kubernetes.io/${key}`,
        operator: "Exists",
        effect: "NoExecute",
        tolerationSeconds: 300,
      })),
      priority: 0,
      enableServiceLinks: true,
      preemptionPolicy: "PreemptLowerPriority",
    },
    status: {
      phase: "Running",
      conditions: CONDITIONS.map((type) => ({ type, status: "True", lastProbeTime: null, lastTransitionTime: TIME })),
      hostIP: "192.0.2.254",
      podIP: addresses[0],
      podIPs: addresses.map((ip) => ({ ip })),
      startTime: TIME,
      containerStatuses: NAMES.map((one) => ({
        name: one,
        state: { running: { startedAt: TIME } },
        lastState: {},
        ready: true,
        restartCount: 0,
        image: `registry.example.com/shop/${one}:2026-05-04.1`,
        imageID: `registry.example.com/shop/${one}@sha256:${"b".repeat(64)}`,
        containerID: `containerd://${"c".repeat(64)}`,
        started: true,
      })),
      qosClass: "Burstable",
    },
  };
}
