import { type FilterSettings, SEVERITIES, type Severity } from "../model/alerts.ts";
import type { Event } from "../model/event.ts";

const RANK = Object.fromEntries(SEVERITIES.map((severity, i) => [severity, i])) as Readonly<Record<Severity, number>>;

/** Does a sink with this filter get the event? Every condition that is given must hold. */
export function passes(filter: FilterSettings, event: Event, severity: Severity): boolean {
  const { types, verdicts, namespaces, policies } = filter;
  return (
    RANK[severity] >= RANK[filter.severity] &&
    (types === undefined || types.includes(event.type)) &&
    (verdicts === undefined || verdicts.includes(event.verdict)) &&
    (namespaces === undefined || (event.pod !== null && namespaces.includes(event.pod.namespace))) &&
    (policies === undefined || policies.some((one) => one === event.policy || event.policies.includes(one)))
  );
}
