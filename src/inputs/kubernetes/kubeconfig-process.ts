import type { RequestOptions } from "node:https";
import { KubeConfig } from "@kubernetes/client-node";
import { messageOf } from "../../base/fault.ts";
import type { KubeconfigAnswer } from "./kubeconfig.ts";

// A program: reads the kubeconfig files of its arguments and prints a KubeconfigAnswer. kubeconfig.ts starts it.

async function readKubeconfig(files: readonly string[]): Promise<KubeconfigAnswer> {
  const config = new KubeConfig();
  for (const [index, file] of files.entries()) {
    const one = index === 0 ? config : new KubeConfig();
    try {
      one.loadFromFile(file);
    } catch (error) {
      return { problem: `cannot be read: ${messageOf(error)}`, fix: "name a kubeconfig file with KUBECONFIG" };
    }
    if (index > 0) config.mergeConfig(one, true);
  }
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    const known = config.getContexts().map(({ name }) => name);
    return {
      problem: `its current-context (${config.getCurrentContext() || "not set"}) names no cluster`,
      fix: `kubectl config use-context ${known[0] ?? "NAME"}`,
    };
  }
  if (cluster.proxyUrl) return { problem: "proxy-url is not supported", fix: "remove it, and reach the server directly" };
  const options: RequestOptions = {};
  try {
    await config.applyToHTTPSOptions(options);
  } catch (error) {
    return { problem: `cannot log in: ${messageOf(error)}`, fix: "run its exec plugin, or look at its certificate files, by hand" };
  }
  const { ca, cert, key, servername, rejectUnauthorized, auth } = options;
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(options.headers ?? {})) headers[name] = String(value);
  if (typeof auth === "string") headers.Authorization = `Basic ${Buffer.from(auth).toString("base64")}`;
  const tls = {
    ...pem("ca", ca),
    ...pem("cert", cert),
    ...pem("key", key),
    ...(servername === undefined ? {} : { servername }),
    ...(rejectUnauthorized === undefined ? {} : { rejectUnauthorized }),
  };
  return { credentials: { server: cluster.server, tls, headers } };
}

/** client-node gives certificates and keys as Buffers, or as text where a plugin gave them. */
function pem(name: "ca" | "cert" | "key", value: unknown): Partial<Record<typeof name, string>> {
  return Buffer.isBuffer(value) || typeof value === "string" ? { [name]: value.toString() } : {};
}

process.stdout.write(JSON.stringify(await readKubeconfig(process.argv.slice(2))));
