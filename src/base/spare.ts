/** Small buffers that were given back, by size, for whoever needs one next: most connections say what they are in one segment or two. */
const OCTETS_MAX = 2048;
const OCTETS_MIN = 256;
const SPARES_MAX = 64;
const spares = new Map<number, Uint8Array[]>();

/** What it holds is left from before. */
export function take(size: number): Uint8Array {
  return (size <= OCTETS_MAX ? spares.get(size)?.pop() : undefined) ?? new Uint8Array(size);
}

/** Nobody may look at it any more. */
export function giveBack(buffer: Uint8Array): void {
  const size = buffer.length;
  if (size < OCTETS_MIN || size > OCTETS_MAX || (size & (size - 1)) !== 0) return; // a few sizes only
  const list = spares.get(size);
  if (list === undefined) spares.set(size, [buffer]);
  else if (list.length < SPARES_MAX) list.push(buffer);
}
