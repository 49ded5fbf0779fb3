/** One table as `iptables-save -t TABLE` prints it. Rules are without the leading `-A CHAIN `. */
export interface SavedTable {
  readonly chains: ReadonlyMap<string, readonly string[]>;
}

/** Reads `iptables-save` output of one table; counters in front of rules are dropped, unknown lines ignored. */
export function readSaved(text: string): SavedTable {
  const chains = new Map<string, string[]>();
  for (const line of text.split("\n")) {
    if (line.startsWith(":")) {
      chains.set(line.slice(1, line.indexOf(" ")), []);
      continue;
    }
    const at = line.startsWith("-A ") ? 0 : line.startsWith("[") ? line.indexOf("] -A ") + 2 : -1;
    if (at < 0 || (at === 1 && line.startsWith("["))) continue;
    const rest = line.slice(at + 3);
    const space = rest.indexOf(" ");
    const chain = space < 0 ? rest : rest.slice(0, space);
    const rules = chains.get(chain);
    const rule = space < 0 ? "" : rest.slice(space + 1).trimEnd();
    if (rules === undefined) chains.set(chain, [rule]);
    else rules.push(rule);
  }
  return { chains };
}
