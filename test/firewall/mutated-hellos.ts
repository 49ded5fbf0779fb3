import { HELLOS } from "../inspect/hellos.ts";

const u16 = (value: number): number[] => [value >> 8, value & 255];
const sized = (body: readonly number[]): number[] => [...u16(body.length), ...body];

/** A hello in one record, with these extensions behind server name and versions. */
export function plainHello(extensions: readonly (readonly [number, readonly number[]])[], name = "a.example.com"): Buffer {
  const host = [...Buffer.from(name, "latin1")];
  const all: (readonly [number, readonly number[]])[] = [[0, sized([0, ...sized(host)])], [43, [2, 3, 4]], ...extensions];
  const list = sized(all.flatMap(([type, data]) => [...u16(type), ...sized(data)]));
  const body = [3, 3, ...Array.from({ length: 32 }, (_, i) => i), 0, ...sized([0x13, 1]), 1, 0, ...list];
  return Buffer.from([22, 3, 1, ...u16(body.length + 4), 1, 0, ...u16(body.length), ...body]);
}

const ORIGINALS = Object.values(HELLOS).map(({ hex }) => Buffer.from(hex, "hex"));
/** Where lengths and types of small hellos are most often. */
const TELLING = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 43, 44];

/** A real client's hello, or one of ours, with something changed, cut or moved; often it is still one. */
export function mutated(random: () => number): Uint8Array {
  const pick = <T>(list: readonly T[]): T => list[random() % list.length] as T;
  let bytes: Buffer;
  if (random() % 3 > 0) bytes = Buffer.from(pick(ORIGINALS));
  else {
    const count = random() % 6;
    const extension = (): readonly [number, number[]] => {
      const type = pick([0, 5, 10, 13, 13, 16, 16, 21, 23, 35, 41, 42, 43, 51, 62, 63, 0xff01, 0xfe0d, 0x2a2a]);
      const raw = Array.from({ length: random() % 7 }, () => random() & 255);
      if (type === 13) return [type, random() % 2 === 0 ? raw : sized([4, 3, ...(random() % 2 === 0 ? [8, 4] : [])])];
      if (type === 16) return [type, random() % 3 === 0 ? raw : sized([2, 0x68, 0x32])];
      return [type, raw];
    };
    bytes = plainHello(
      Array.from({ length: count }, extension),
      pick(["a.example.com", "b.example.com", "x".repeat(63) + ".com", "A.example.com", "-", "1.2.3.4"]),
    );
  }
  for (let changes = random() % 4; changes > 0; changes--) {
    const at = random() % 4 === 0 ? pick(TELLING) : random() % bytes.length;
    bytes[at] = random() % 2 === 0 ? random() & 255 : (bytes[at] as number) ^ (1 << (random() % 8));
  }
  if (random() % 16 === 0) return bytes.subarray(0, random() % (bytes.length + 1));
  return random() % 16 === 0 ? Buffer.concat([bytes, Buffer.of(random() & 255)]) : bytes;
}
