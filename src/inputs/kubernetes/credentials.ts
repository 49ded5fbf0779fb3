import { existsSync, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { Fault, messageOf } from "../../base/fault.ts";
import { ApiFault } from "./faults.ts";
import { kubeconfigSource } from "./kubeconfig.ts";
import type { Outcome } from "./types.ts";

/** What a connection needs; all PEM as text. */
export interface Credentials {
  /** `https://10.96.0.1:443` */
  readonly server: string;
  readonly tls: {
    readonly ca?: string;
    readonly cert?: string;
    readonly key?: string;
    readonly servername?: string;
    readonly rejectUnauthorized?: boolean;
  };
  /** Authorization, Impersonate-User. */
  readonly headers: Readonly<Record<string, string>>;
}

export interface CredentialSource {
  /** For a person. */
  readonly source: string;
  /** They may have changed after so long: tokens of service accounts are rotated. */
  readonly freshMs: number;
  readonly read: () => Promise<Outcome<Credentials>>;
}

export interface CredentialPlaces {
  /** A kubeconfig file. Default: KUBECONFIG; else the service account of the pod; else ~/.kube/config. */
  readonly kubeconfig?: string;
  /** For KUBECONFIG, HOME, KUBERNETES_SERVICE_HOST and _PORT. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Default `/var/run/secrets/kubernetes.io/serviceaccount`. */
  readonly serviceAccount?: string;
}

const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_FRESH_MS = 60_000; // as client-go; the kubelet writes a new token at 80 % of the old one's life

/** The first place that is there: what somebody named, then the pod's service account, then the user's file. Throws a Fault where there is none. */
export function findCredentials(places: CredentialPlaces): CredentialSource {
  const { env } = places;
  const named = places.kubeconfig ?? env.KUBECONFIG ?? "";
  const files = named.split(delimiter).filter((file) => file !== "");
  if (files.length > 0) return kubeconfigSource(files, env);
  const folder = places.serviceAccount ?? SERVICE_ACCOUNT;
  const host = env.KUBERNETES_SERVICE_HOST ?? "";
  if (host !== "" && existsSync(join(folder, "token"))) return serviceAccountSource(folder, host, env.KUBERNETES_SERVICE_PORT ?? "443");
  const own = join(env.HOME ?? "/root", ".kube", "config");
  if (existsSync(own)) return kubeconfigSource([own], env);
  const pod = host === "" ? "KUBERNETES_SERVICE_HOST is not set, so this is no pod" : `${folder}/token does not exist`;
  throw new Fault(
    "kubernetes-no-config",
    `no Kubernetes API server is known: KUBECONFIG is not set, ${pod}, and ${own} does not exist`,
    "set KUBECONFIG, or run as a pod with a service account, or without a cluster: namegate agent --policies DIR --pods FILE",
  );
}

/**
 * What KubeConfig.loadFromCluster of @kubernetes/client-node gives (a test compares them), without its 70 MB: a token, a
 * certificate authority and two variables.
 */
export function serviceAccountSource(folder: string, host: string, port: string): CredentialSource {
  const source = `the service account in ${folder}`;
  const server = `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
  const read = (): Outcome<Credentials> => {
    try {
      const token = readFileSync(join(folder, "token"), "utf8").trim();
      const ca = readFileSync(join(folder, "ca.crt"), "utf8");
      return { ok: true, value: { server, tls: { ca }, headers: { Authorization: `Bearer ${token}` } } };
    } catch (error) {
      const fix = "mount the service account: automountServiceAccountToken of the pod and of the service account";
      return { ok: false, fault: new ApiFault("credentials", `${source} cannot be read: ${messageOf(error)}`, fix, { cause: error }) };
    }
  };
  return { source, freshMs: TOKEN_FRESH_MS, read: () => Promise.resolve(read()) };
}
