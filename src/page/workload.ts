import type { Event } from "../model/event.ts";

const NAME_CHARS_MAX = 253;

/**
 * What a pod belongs to, as far as its labels say: a Deployment (pod-template-hash), StatefulSet, DaemonSet or Job with its number or random
 * suffix taken off; otherwise the pod itself. Only for show: labels are the tenant's word.
 */
export function workloadOf({ name, labels }: Pick<NonNullable<Event["pod"]>, "name" | "labels">): string {
  const label = (key: string): string => (Object.hasOwn(labels, key) ? (labels[key] ?? "") : "");
  const job = label("batch.kubernetes.io/job-name") || label("job-name");
  if (job !== "" && name.startsWith(`${job}-`)) return job.replace(/-\d{8,10}$/, "").slice(0, NAME_CHARS_MAX); // a CronJob's minute
  const hash = label("pod-template-hash");
  if (hash !== "" && name.includes(`-${hash}-`)) return name.slice(0, name.lastIndexOf(`-${hash}-`)).slice(0, NAME_CHARS_MAX);
  if (label("statefulset.kubernetes.io/pod-name") === name) return name.replace(/-\d{1,10}$/, "").slice(0, NAME_CHARS_MAX);
  if (label("controller-revision-hash") !== "") return name.replace(/-[a-z0-9]{5}$/, "").slice(0, NAME_CHARS_MAX);
  return name.slice(0, NAME_CHARS_MAX);
}
