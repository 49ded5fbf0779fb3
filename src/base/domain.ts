/** Second-level domains below which registries of countries register (`co.uk`). */
const REGISTRIES: ReadonlySet<string> = new Set(
  "ac co com edu go gob gouv gov gub ltd me mil ne net nom or org plc sch school web".split(" "),
);
/** Labels of reverse names that stay together: a /16 of IPv4, a /32 of IPv6. */
const REVERSE_LABELS = { "in-addr.arpa": 2, "ip6.arpa": 8 } as const;

/**
 * Where in `name` the part begins that somebody may have registered: two labels, three below a registry of a country, a network of
 * reverse names. A guess: the list that is exact (publicsuffix.org) changes weekly, and a wrong guess only moves what is counted together.
 */
export function domainStart(name: string): number {
  const last = name.lastIndexOf(".");
  if (last <= 0) return 0;
  let dot = name.lastIndexOf(".", last - 1);
  if (dot <= 0) return 0;
  const labels = name.endsWith(".in-addr.arpa")
    ? REVERSE_LABELS["in-addr.arpa"]
    : name.endsWith(".ip6.arpa")
      ? REVERSE_LABELS["ip6.arpa"]
      : name.length - last === 3 && REGISTRIES.has(name.slice(dot + 1, last))
        ? 1
        : 0;
  for (let i = 0; i < labels && dot > 0; i++) dot = name.lastIndexOf(".", dot - 1);
  return dot <= 0 ? 0 : dot + 1;
}
