import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import type { ApiServer, Rule } from "./apiserver.ts";
import { ROOT } from "./need.ts";

/** daemonset/ as objects. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly labels?: Readonly<Record<string, string>> };
  // Objects of many kinds: tests look at fields of one.
  readonly [field: string]: unknown;
}

export const NAMESPACE = "namegate-system";
/** What renders the chart where there is no helm: files, since Debian's packages bring sources. */
export const RENDERER = ["go", "/usr/share/gocode/src/github.com/Masterminds/sprig", "/usr/share/gocode/src/sigs.k8s.io/yaml"] as const;

export function parse(text: string): Manifest[] {
  return parseAllDocuments(text).flatMap((document) => {
    if (!("toJS" in document)) return [];
    if (document.errors.length > 0) throw new Error(`${document.errors[0]?.message}\n${text.slice(0, 2000)}`);
    const value = document.toJS() as Manifest | null;
    return value === null ? [] : [value];
  });
}

export const read = (path: string): Manifest[] => parse(readFileSync(join(ROOT, "daemonset", path), "utf8"));

/** Runs scripts/manifests.mjs. */
export function manifests(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(ROOT, "scripts", "manifests.mjs"), ...argv], { encoding: "utf8" });
  return { status, stdout, stderr };
}

/** The chart with these values. */
export function chart(values: unknown = {}): Manifest[] {
  const { status, stdout, stderr } = manifests("render", JSON.stringify(values));
  if (status !== 0) throw new Error(stderr);
  return parse(stdout);
}

export function one(objects: readonly Manifest[], kind: string, name?: string): Manifest {
  const found = objects.filter((object) => object.kind === kind && (name === undefined || object.metadata.name === name));
  if (found.length !== 1) throw new Error(`${found.length} of ${kind} ${name ?? ""}`);
  return found[0] as Manifest;
}

/** The rules of install.yaml: of the ClusterRole, and of Roles by namespace. What the agent runs under in tests is this. */
export function installRules(): { readonly cluster: readonly Rule[]; readonly namespaced: ReadonlyMap<string, readonly Rule[]> } {
  return rulesOf(read("install.yaml"));
}

export function rulesOf(objects: readonly Manifest[]): ReturnType<typeof installRules> {
  const rules = ({ rules: list }: Manifest): readonly Rule[] => list as readonly Rule[];
  return {
    cluster: objects.filter(({ kind }) => kind === "ClusterRole").flatMap(rules),
    namespaced: new Map(objects.filter(({ kind }) => kind === "Role").map((role) => [role.metadata.namespace ?? "", rules(role)])),
  };
}

/** `verb resource`, each once. */
export function permissions(rules: readonly Rule[]): string[] {
  const all = rules.flatMap(({ apiGroups, resources, verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) => verbs.map((verb) => `${verb} ${resource}${group === "" ? "" : `.${group}`}`)),
    ),
  );
  return [...new Set(all)].sort();
}

/** A real kubectl with `kustomize` inside: on the PATH. */
export function kustomize(overlay: string): Manifest[] | undefined {
  const folder = join(ROOT, "daemonset", "kustomize", overlay);
  if (!existsSync(folder)) throw new Error(`${folder} is not there`);
  const { error, status, stdout, stderr } = spawnSync("kubectl", ["kustomize", folder], { encoding: "utf8" });
  if (error !== undefined) return undefined;
  if (status !== 0) throw new Error(stderr);
  return parse(stdout);
}

/** Creates what install.yaml has, but for the DaemonSet, and gives a token of its service account, as the kubelet would. */
export async function install(api: ApiServer): Promise<string> {
  for (const object of read("install.yaml")) {
    const { apiVersion, kind, metadata } = object;
    if (kind === "DaemonSet") continue;
    const group = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const within = metadata.namespace === undefined ? "" : `/namespaces/${metadata.namespace}`;
    await api.must("POST", `${group}${within}/${kind.toLowerCase()}s`, object);
  }
  const issued = await api.must("POST", `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/namegate/token`, {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { audiences: ["https://kubernetes.default.svc"] },
  });
  return (issued["status"] as { token: string }).token;
}
