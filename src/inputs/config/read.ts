import { parseIp, type Ip } from "../../base/address.ts";
import type { Problem } from "../../model/policy.ts";
import { offsetAt, parseYaml, pathText } from "../../policy/yaml.ts";
import { alerts } from "./alerts.ts";
import { address, choice, domain, duration, endpoint, fields, flag, list, matching, number, pattern, type Say, text } from "./fields.ts";
import { type ClusterSettings, IPTABLES, LOG_LEVELS, NODE_SERVERS, POD_SERVERS, type Settings } from "./settings.ts";

/** Of the file; far more than anybody writes. */
const CONFIG_CHARS_MAX = 1024 * 1024;
const PROBLEMS_MAX = 100;

const name = matching(/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/, "lower case letters, digits, `-` and `.`");
const nodeLocalDefault = [parseIp("169.254.20.10") as Ip]; // NodeLocal DNSCache's own choice

/** Every field there is. */
const CONFIG = {
  policies: text,
  pods: text,
  state: text,
  socket: text,
  metrics: matching(/^(off|\S+:\d{1,5})$/, "ADDR:PORT, for example 127.0.0.1:9810, or `off`"),
  page: flag,
  logLevel: choice(LOG_LEVELS),
  iptables: choice(IPTABLES),
  markMask: number(1, 0xffffffff),
  queueBase: number(0, 65_529),
  checkInterval: duration(100, 3_600_000),
  selfTestInterval: duration(0, 3_600_000),
  knownHellos: flag,
  limits: fields({ upcalls: number(1, 10_000_000), bindings: number(1, 1_000_000), events: number(1, 100_000) }),
  dnsOverHttps: list(pattern),
  clusterNamespace: name,
  nodeName: name,
  kubeconfig: text,
  policySelector: matching(/^[A-Za-z0-9./_=!,() -]{1,512}$/, "a label selector, for example namegate.dev/policy=true"),
  clusterDomain: domain,
  searches: list(domain),
  interfacePrefixes: list(matching(/^[A-Za-z0-9_.-]{1,14}$/, "the beginning of an interface name, for example cali")),
  cniConfigDir: text,
  resolvers: fields({
    override: list(endpoint),
    also: list(endpoint),
    namespaces: list(name),
    services: list(name),
    nodeLocal: list(address),
    node: choice(NODE_SERVERS),
    nodeFile: text,
    podDnsConfig: choice(POD_SERVERS),
  }),
  startup: fields({
    apiWait: duration(0, 600_000),
    holdUnknownPods: flag,
    taint: matching(/^[A-Za-z0-9./_-]{1,253}$/, "the key of a taint, for example namegate.dev/agent-not-ready"),
  }),
  kubernetesEvents: flag,
  alerts,
} as const;

const root = fields(CONFIG);
type Given = Partial<NonNullable<ReturnType<typeof root>>>;

/** Reads the text of a config file. With any problem there are no settings; every problem is named. */
export function readConfig(file: string, content: string): { readonly settings?: Settings; readonly problems: readonly Problem[] } {
  if (content.length > CONFIG_CHARS_MAX)
    return { problems: [{ file, line: 1, column: 1, path: "", message: `longer than ${CONFIG_CHARS_MAX} characters`, hint: undefined }] };
  const { documents, lines } = parseYaml(content);
  const problems: Problem[] = [];
  const at = (offset: number, path: string, message: string, hint: string | undefined): void => {
    const { line, col } = lines.linePos(offset);
    if (problems.length < PROBLEMS_MAX) problems.push({ file, line: Math.max(1, line), column: Math.max(1, col), path, message, hint });
  };
  const [document, second] = documents;
  if (second !== undefined) at(second.offset, "", "a second document", "one file has one configuration: remove the line `---`");
  if (document === undefined) return problems.length > 0 ? { problems } : { settings: settingsOf({}), problems };
  for (const { offset, path, message, hint } of document.findings) at(offset, pathText(path), message, hint);
  if (problems.length > 0) return { problems };
  const say: Say = (path, message, hint, which) => at(offsetAt(document, path, which ?? "value"), pathText(path), message, hint);
  const given = root(document.value, [], say) ?? {};
  problems.sort((a, b) => a.line - b.line || a.column - b.column);
  return problems.length > 0 ? { problems } : { settings: settingsOf(given), problems };
}

/** The settings of no file at all. */
export const NO_CONFIG: Settings = settingsOf({});

function settingsOf(given: Given): Settings {
  const { policies, pods, state, socket, metrics, page, logLevel, iptables, markMask, queueBase, clusterNamespace, limits } = given;
  return {
    policies,
    pods,
    state,
    socket,
    metrics,
    page,
    logLevel,
    iptables,
    markMask,
    queueBase,
    clusterNamespace,
    checkMs: given.checkInterval,
    selfTestMs: given.selfTestInterval,
    knownHellos: given.knownHellos,
    upcalls: limits?.upcalls,
    maxBindings: limits?.bindings,
    events: limits?.events,
    dnsOverHttps: given.dnsOverHttps,
    alerts: given.alerts,
    cluster: clusterOf(given),
  };
}

function clusterOf(given: Given): ClusterSettings {
  const { resolvers, startup } = given;
  return {
    nodeName: given.nodeName,
    kubeconfig: given.kubeconfig,
    policySelector: given.policySelector ?? "namegate.dev/policy=true",
    clusterDomain: given.clusterDomain ?? "cluster.local",
    searches: given.searches ?? [],
    interfacePrefixes: given.interfacePrefixes,
    cniConfigDir: given.cniConfigDir ?? "/etc/cni/net.d",
    resolvers: {
      override: resolvers?.override,
      also: resolvers?.also ?? [],
      namespaces: resolvers?.namespaces ?? ["kube-system", "openshift-dns"],
      services: resolvers?.services ?? ["kube-dns", "coredns", "rke2-coredns-rke2-coredns", "dns-default"],
      nodeLocal: resolvers?.nodeLocal ?? nodeLocalDefault,
      node: resolvers?.node ?? "DefaultPods",
      nodeFile: resolvers?.nodeFile ?? "/etc/resolv.conf",
      podDnsConfig: resolvers?.podDnsConfig ?? "Ignore",
    },
    startup: {
      apiWaitMs: startup?.apiWait ?? 2000,
      holdUnknownPods: startup?.holdUnknownPods ?? true,
      taint: startup?.taint,
    },
    kubernetesEvents: given.kubernetesEvents ?? true,
  };
}
