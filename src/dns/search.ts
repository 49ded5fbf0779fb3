import type { DnsName } from "../base/name.ts";

/**
 * `name` without the longest of the pod's search suffixes that it ends in, or `name` itself. What a resolver library
 * asks for `db` is `db.shop.svc.cluster.local`; a policy may have meant either.
 */
export function withoutSearch(name: DnsName, searches: readonly string[]): DnsName {
  let cut = name.length;
  for (const search of searches) {
    const at = name.length - search.length - 1;
    if (search.length > 0 && at > 0 && at < cut && name.charCodeAt(at) === 46 && name.endsWith(search)) cut = at;
  }
  return cut === name.length ? name : (name.slice(0, cut) as DnsName);
}

/**
 * Did the resolver walk the search path for the pod (CoreDNS autopath)? It then answers `x.y.z.<search>` with a CNAME to
 * `x.y.z`, or to `x.y.z.<another search>`: the name that the pod meant.
 */
export function isSearchedName(asked: DnsName, target: DnsName, searches: readonly string[]): boolean {
  const meant = withoutSearch(asked, searches);
  return meant !== asked && (meant === target || meant === withoutSearch(target, searches));
}
