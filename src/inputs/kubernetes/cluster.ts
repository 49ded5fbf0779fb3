import type { Cluster } from "./types.ts";

export interface ClusterOptions {
  /** A kubeconfig file. Default: KUBECONFIG; else the service account of the pod; else ~/.kube/config. */
  readonly kubeconfig?: string;
  /** For KUBECONFIG, HOME, KUBERNETES_SERVICE_HOST and _PORT. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Default `/var/run/secrets/kubernetes.io/serviceaccount`. */
  readonly serviceAccount?: string;
  readonly now: () => number;
  /** 0 up to 1; default Math.random. */
  readonly random?: () => number;
}

/** Finds credentials and asks nobody yet: a server that is away does not keep an agent from starting. Throws a Fault when there are none. */
export declare function openCluster(options: ClusterOptions): Promise<Cluster>;
