import type { LabelExpression, LabelSelector, Policy, Tier } from "../model/policy.ts";
import type { Pod } from "../model/snapshot.ts";

export type Labels = Readonly<Record<string, string>>;

const TIER_ORDER: Readonly<Record<Tier, number>> = { Admin: 0, Namespace: 1, Baseline: 2 };

/** The label every namespace carries with its own name; assumed where a namespace's labels are not known. */
const NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name";

function expressionMatches(expression: LabelExpression, labels: Labels): boolean {
  const has = Object.hasOwn(labels, expression.key);
  switch (expression.operator) {
    case "In":
      return has && expression.values.includes(labels[expression.key] as string);
    case "NotIn": // as in Kubernetes: a missing label is not in the list
      return !has || !expression.values.includes(labels[expression.key] as string);
    case "Exists":
      return has;
    case "DoesNotExist":
      return !has;
    default:
      return expression.operator satisfies never;
  }
}

/** As metav1.LabelSelector: all of it must match, and an empty selector matches everything. */
export function selectorMatches(selector: LabelSelector, labels: Labels): boolean {
  for (const [key, value] of Object.entries(selector.matchLabels)) {
    if (!Object.hasOwn(labels, key) || labels[key] !== value) return false;
  }
  return selector.matchExpressions.every((expression) => expressionMatches(expression, labels));
}

/** Does `policy` guard `pod`, whose namespace has these labels? */
export function selects(policy: Policy, pod: Pod, namespaceLabels: Labels): boolean {
  if (policy.kind === "EgressPolicy" && policy.namespace !== pod.namespace) return false;
  const { podSelector, namespaceSelector, serviceAccountNames } = policy.subject;
  if (namespaceSelector !== undefined && !selectorMatches(namespaceSelector, namespaceLabels)) return false;
  if (serviceAccountNames !== undefined && !serviceAccountNames.includes(pod.serviceAccountName)) return false;
  return selectorMatches(podSelector, pod.labels);
}

/** The order of judgement: Admin by priority, Namespace, Baseline by priority; then by id, so that it is the same everywhere. */
export function compareJudgement(a: Policy, b: Policy): number {
  return TIER_ORDER[a.tier] - TIER_ORDER[b.tier] || a.priority - b.priority || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** The labels of a namespace. */
export function labelsOf(namespace: string, namespaces: Readonly<Record<string, Labels>>): Labels {
  const known = Object.hasOwn(namespaces, namespace) ? namespaces[namespace] : undefined;
  return known ?? { [NAMESPACE_NAME_LABEL]: namespace };
}

/** The policies that guard `pod`, in order of judgement; none: the pod is left alone. `namespaces`: labels by namespace. */
export function selectPolicies(policies: readonly Policy[], pod: Pod, namespaces: Readonly<Record<string, Labels>>): Policy[] {
  const labels = labelsOf(pod.namespace, namespaces);
  return policies.filter((policy) => selects(policy, pod, labels)).sort(compareJudgement);
}
