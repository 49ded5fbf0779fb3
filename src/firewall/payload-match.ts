import type { Family } from "../base/address.ts";

/**
 * Classic BPF for xt_bpf (the packet starts at its IP header): true when a TCP segment has payload. IPv4: total length >
 * header lengths. IPv6: true too where the next header is not TCP, so that extension headers never hide payload.
 */
export function hasPayload(of: Family): string {
  return payloadMatch(of, "6 0 0 1", "6 0 0 0");
}

/** The opposite: a TCP segment without payload, and without extension headers. */
export function isBare(of: Family): string {
  return payloadMatch(of, "6 0 0 0", "6 0 0 1");
}

function payloadMatch(of: Family, payload: string, none: string): string {
  const program =
    of === 4
      ? ["177 0 0 0", "80 0 0 12", "116 0 0 2", "84 0 0 60", "12 0 0 0", "7 0 0 0", "40 0 0 2", "29 1 0 0", payload, none]
      : ["48 0 0 6", "21 0 6 6", "48 0 0 52", "116 0 0 2", "84 0 0 60", "7 0 0 0", "40 0 0 4", "29 1 0 0", payload, none];
  return `-m bpf --bytecode "${program.length},${program.join(",")}"`;
}
