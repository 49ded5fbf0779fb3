import { Fault } from "../base/fault.ts";

/**
 * Three bits of the packet mark and of the connmark are ours. The default collides with none of: Calico 0xffff0000,
 * kube-proxy 0x4000 and 0x8000, Istio 0x111 and 0x539, AWS VPC CNI 0x80, Cilium 0x0f00.
 */
export const MARK_MASK_DEFAULT = 0x3040;

const CLASS_BITS = 3;

/** Spreads classes 0..7 over the bits of a mask and gathers them again. */
export interface Marks {
  readonly mask: number;
  /** The mark value of a class. */
  value(classNumber: number): number;
  /** `mark` with the class in our bits, and everybody else's bits as they were. */
  put(mark: number, classNumber: number): number;
  /** The class in a mark. */
  classOf(mark: number): number;
}

/** Throws a Fault when `mask` does not have exactly three bits. */
export function marks(mask: number = MARK_MASK_DEFAULT): Marks {
  const bits: number[] = [];
  for (let bit = 0; bit < 32; bit++) if ((mask & (1 << bit)) !== 0) bits.push(bit);
  if (!Number.isSafeInteger(mask) || mask <= 0 || mask > 0xffffffff || bits.length !== CLASS_BITS) {
    throw new Fault(
      "mark-mask",
      `mark mask 0x${mask.toString(16)} has ${bits.length} bits`,
      `choose a mask of exactly ${CLASS_BITS} bits that nothing else on the node uses, for example 0x${MARK_MASK_DEFAULT.toString(16)}`,
    );
  }
  const values = Array.from({ length: 1 << CLASS_BITS }, (_, c) =>
    bits.reduce((value, bit, i) => ((c >> i) & 1 ? (value | (1 << bit)) >>> 0 : value), 0),
  );
  return {
    mask: mask >>> 0,
    value: (c) => values[c & 7] as number,
    put: (mark, c) => ((mark & ~mask) | (values[c & 7] as number)) >>> 0,
    classOf: (mark) => bits.reduce((c, bit, i) => c | (((mark >>> bit) & 1) << i), 0),
  };
}

export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}

/** Does this rule lead to a chain of ours, of this version or another? */
export function isJumpOfOurs(rule: string): boolean {
  return / -j NG-[A-Z-]+$/.test(` ${rule}`);
}

/** A rule of somebody else whose mark bits overlap ours. */
export interface Collision {
  readonly table: string;
  readonly rule: string;
  readonly why: string;
}

/**
 * Looks through `iptables-save` text for rules, not ours, that read or write our bits of the connmark, or our bits of the
 * packet mark under an explicit mask. Whole-word packet marks (mask 0xffffffff) are harmless: ours are zero outside our
 * own chains.
 */
export function collisions(saved: string, mask: number): Collision[] {
  const found: Collision[] = [];
  let table = "";
  for (const line of saved.split("\n")) {
    if (line.startsWith("*")) table = line.slice(1).trim();
    if (!line.startsWith("-A ") || line.startsWith("-A NG-") || isJumpOfOurs(line)) continue;
    const words = line.split(" ");
    const target = words[words.indexOf("-j") + 1];
    const connmarkMatch = words.indexOf("connmark");
    for (const [i, word] of words.entries()) {
      const next = words[i + 1];
      if (next === undefined) continue;
      if (word === "--mark") {
        const conn = connmarkMatch >= 0 && connmarkMatch < i && !words.slice(connmarkMatch, i).includes("mark");
        const given = next.split("/")[1];
        const bits = given === undefined ? 0xffffffff : Number(given);
        if ((conn || given !== undefined) && !(bits === 0xffffffff && !conn) && (bits & mask) !== 0) {
          found.push({ table, rule: line, why: `matches ${conn ? "connmark" : "mark"} bits ${hex(bits & mask)} that are ours` });
        }
      } else if ((word === "--set-xmark" || word === "--set-mark") && target !== undefined) {
        const conn = target === "CONNMARK";
        const bits = Number(next.split("/")[1] ?? 0xffffffff);
        if ((conn || bits !== 0xffffffff) && (bits & mask) !== 0)
          found.push({ table, rule: line, why: `sets ${conn ? "connmark" : "mark"} bits ${hex(bits & mask)} that are ours` });
      } else if (word === "--save-mark" && target === "CONNMARK") {
        const at = words.indexOf("--ctmask");
        const bits = at < 0 ? 0xffffffff : Number(words[at + 1]);
        if ((bits & mask) !== 0)
          found.push({ table, rule: line, why: `saves the packet mark over connmark bits ${hex(bits & mask)} that are ours` });
      }
    }
  }
  return found;
}
