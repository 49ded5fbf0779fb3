/** A DNS encoder for tests: it can write what no library would, and compresses wherever it is told to. */

/** Labels as latin1 strings: ["www", "example", "com"]. */
export type Labels = readonly string[];

export interface TestRecord {
  readonly name: Labels;
  readonly type: number;
  readonly class?: number;
  readonly ttl?: number;
  /** Octets, or a name (of a CNAME). */
  readonly data: Uint8Array | { readonly name: Labels };
}

export interface TestMessage {
  readonly id?: number;
  /** The second header word; default: a good reply with RD and RA. */
  readonly flags?: number;
  readonly questions: readonly { readonly name: Labels; readonly type: number; readonly class?: number }[];
  readonly answers?: readonly TestRecord[];
  readonly authorities?: readonly TestRecord[];
  readonly additionals?: readonly TestRecord[];
}

export const labels = (name: string): Labels => (name === "" ? [] : name.split("."));

/** A generator of numbers 0..2^32-1 from a seed (mulberry32): the same run every time. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** `compress()` is asked for every suffix that has been written before (case kept): pointer or labels? */
export function encode(message: TestMessage, compress: () => boolean = () => true): Uint8Array {
  const out: number[] = [];
  const places = new Map<string, number>();
  const u16 = (value: number): void => void out.push((value >> 8) & 255, value & 255);
  const name = (list: Labels): void => {
    for (let i = 0; i < list.length; i++) {
      const suffix = list.slice(i).join("\0");
      const place = places.get(suffix);
      if (place !== undefined && compress()) return u16(0xc000 | place);
      if (place === undefined && out.length < 0x4000) places.set(suffix, out.length);
      const label = list[i] as string;
      out.push(label.length);
      for (let k = 0; k < label.length; k++) out.push(label.charCodeAt(k));
    }
    out.push(0);
  };
  const { answers = [], authorities = [], additionals = [] } = message;
  for (const word of [
    message.id ?? 0x1234,
    message.flags ?? 0x8180,
    message.questions.length,
    answers.length,
    authorities.length,
    additionals.length,
  ])
    u16(word);
  for (const question of message.questions) {
    name(question.name);
    u16(question.type);
    u16(question.class ?? 1);
  }
  for (const record of [...answers, ...authorities, ...additionals]) {
    name(record.name);
    u16(record.type);
    u16(record.class ?? 1);
    const ttl = record.ttl ?? 300;
    u16(ttl >>> 16);
    u16(ttl & 0xffff);
    if ("name" in record.data) {
      const at = out.length;
      u16(0);
      name(record.data.name);
      const length = out.length - at - 2;
      out[at] = length >> 8;
      out[at + 1] = length & 255;
    } else {
      u16(record.data.length);
      for (const octet of record.data) out.push(octet);
    }
  }
  return Uint8Array.from(out);
}

export const a = (name: string, address: readonly number[], ttl = 300): TestRecord => ({
  name: labels(name),
  type: 1,
  ttl,
  data: Uint8Array.from(address),
});
export const aaaa = (name: string, last: number, ttl = 300): TestRecord => {
  const data = new Uint8Array(16);
  data.set([0x20, 0x01, 0x0d, 0xb8]);
  data[15] = last;
  return { name: labels(name), type: 28, ttl, data };
};
export const cname = (name: string, target: string, ttl = 300): TestRecord => ({
  name: labels(name),
  type: 5,
  ttl,
  data: { name: labels(target) },
});
export const param = (key: number, ...value: number[]): number[] => [key >> 8, key & 255, value.length >> 8, value.length & 255, ...value];
export const svcb = (name: string, priority: number, target: string, params: readonly number[], ttl = 300, type = 65): TestRecord => {
  const octets = [priority >> 8, priority & 255];
  for (const label of labels(target)) octets.push(label.length, ...Buffer.from(label, "latin1"));
  octets.push(0, ...params);
  return { name: labels(name), type, ttl, data: Uint8Array.from(octets) };
};
export const ask = (name: string, type = 1): TestMessage["questions"] => [{ name: labels(name), type }];
