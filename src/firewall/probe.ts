import type { Iptables } from "./iptables.ts";
import type { Matches } from "./rules.ts";

const CHAIN = "NG-TRY";
const TRIES: Readonly<Record<keyof Matches, string>> = {
  bpf: '-m bpf --bytecode "1,6 0 0 1"',
  groups: "-m devgroup --src-group 0x1",
  rpfilter: "-m rpfilter --invert",
};

async function works(iptables: Iptables, matches: readonly string[]): Promise<boolean> {
  try {
    await iptables.restore(
      4,
      [`*mangle`, `:${CHAIN} - [0:0]`, ...matches.map((match) => `-A ${CHAIN} ${match} -j RETURN`), "COMMIT", ""].join("\n"),
    );
    return true;
  } catch {
    return false;
  }
}

async function tidy(iptables: Iptables): Promise<void> {
  const saved = await iptables.save(4, "mangle");
  if (saved.chains.has(CHAIN)) await iptables.restore(4, `*mangle\n-F ${CHAIN}\n-X ${CHAIN}\nCOMMIT\n`);
}

/** Which matches that we can do without this kernel has, tried in a chain that nothing jumps to. */
export async function probeMatches(iptables: Iptables): Promise<Matches> {
  const tried = (name: keyof Matches): Promise<boolean> => works(iptables, [TRIES[name]]);
  const found = (await works(iptables, Object.values(TRIES)))
    ? { bpf: true, groups: true, rpfilter: true }
    : { bpf: await tried("bpf"), groups: await tried("groups"), rpfilter: await tried("rpfilter") };
  await tidy(iptables);
  return found;
}

/** Can iptables use the program that is pinned there? */
export async function probePinned(iptables: Iptables, path: string): Promise<boolean> {
  const found = await works(iptables, [`-m bpf --object-pinned ${path}`]);
  await tidy(iptables);
  return found;
}
