/**
 * Reads what `clang -target bpf -c` writes (ELF-64, little-endian): the programs, one a section, and where they name a map.
 * Only what native/hello.bpf.c has: no calls between programs, no data, maps as undefined symbols.
 */

export interface BpfObject {
  readonly license: string;
  readonly programs: ReadonlyMap<string, Uint8Array>;
  /** Per program: where it loads a map's address (byte of the instruction), and the map's name. */
  readonly references: ReadonlyMap<string, readonly { readonly at: number; readonly map: string }[]>;
}

/** Section types and flags, relocation type (ELF specification; linux/Documentation/bpf/llvm_reloc.rst). */
const PROGBITS = 1;
const SYMTAB = 2;
const REL = 9;
const EXECUTABLE = 4;
const R_BPF_64_64 = 1;
const SECTION_BYTES = 64;
const SYMBOL_BYTES = 24;
const RELOCATION_BYTES = 16;
/** `ld_imm64`: two instructions; as source register, "the number is a map's descriptor" (linux/bpf.h). */
const LD_IMM64 = 0x18;
const PSEUDO_MAP_FD = 1;
const INSTRUCTION_BYTES = 8;

interface Section {
  readonly name: number;
  readonly type: number;
  readonly flags: number;
  readonly bytes: Buffer;
  readonly link: number;
  readonly info: number;
}

function textAt(strings: Buffer, at: number): string {
  const end = strings.indexOf(0, at);
  return strings.toString("latin1", at, end < 0 ? strings.length : end);
}

/** Throws a RangeError or an Error that says what is wrong: the file is ours, so it is one of another version or broken. */
export function readBpfObject(file: Buffer): BpfObject {
  if (file.length < SECTION_BYTES || file.readUInt32BE(0) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1)
    throw new Error("no little-endian ELF-64 file");
  const [at, count, names] = [Number(file.readBigUInt64LE(40)), file.readUInt16LE(60), file.readUInt16LE(62)];
  const sections: Section[] = [];
  for (let i = 0; i < count; i++) {
    const head = file.subarray(at + i * SECTION_BYTES, at + (i + 1) * SECTION_BYTES);
    const offset = Number(head.readBigUInt64LE(24));
    sections.push({
      name: head.readUInt32LE(0),
      type: head.readUInt32LE(4),
      flags: Number(head.readBigUInt64LE(8)),
      bytes: file.subarray(offset, offset + Number(head.readBigUInt64LE(32))),
      link: head.readUInt32LE(40),
      info: head.readUInt32LE(44),
    });
  }
  const nameOf = ({ name }: Section): string => textAt((sections[names] as Section).bytes, name);
  const symbols = sections.find(({ type }) => type === SYMTAB) as Section;
  const strings = (sections[symbols.link] as Section).bytes;
  const programs = new Map<string, Uint8Array>();
  const references = new Map<string, { at: number; map: string }[]>();
  for (const section of sections)
    if (section.type === PROGBITS && (section.flags & EXECUTABLE) !== 0 && section.bytes.length > 0) {
      programs.set(nameOf(section), section.bytes);
      references.set(nameOf(section), []);
    }
  for (const { type, info, bytes } of sections) {
    if (type !== REL) continue;
    const of = references.get(nameOf(sections[info] as Section));
    for (let i = 0; of !== undefined && i < bytes.length; i += RELOCATION_BYTES) {
      if (bytes.readUInt32LE(i + 8) !== R_BPF_64_64) throw new Error("a relocation that is no map's");
      const symbol = bytes.readUInt32LE(i + 12) * SYMBOL_BYTES;
      of.push({ at: Number(bytes.readBigUInt64LE(i)), map: textAt(strings, symbols.bytes.readUInt32LE(symbol)) });
    }
  }
  const license = sections.find((section) => nameOf(section) === "license");
  return { license: license === undefined ? "" : textAt(license.bytes, 0), programs, references };
}

/** The instructions of a program, ready to be loaded: the maps' descriptors are in their places. */
export function linked(object: BpfObject, program: string, fds: ReadonlyMap<string, number>): Uint8Array {
  const bytes = Buffer.from(object.programs.get(program) as Uint8Array);
  for (const { at, map } of object.references.get(program) ?? []) {
    const fd = fds.get(map);
    if (fd === undefined || bytes[at] !== LD_IMM64 || at + 2 * INSTRUCTION_BYTES > bytes.length) throw new Error(`no map ${map}`);
    bytes[at + 1] = ((bytes[at + 1] as number) & 0x0f) | (PSEUDO_MAP_FD << 4);
    bytes.writeInt32LE(fd, at + 4);
  }
  return bytes;
}
