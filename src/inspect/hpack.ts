import { Cursor, type Bad } from "../base/cursor.ts";
import { decodeHuffman } from "./hpack-huffman.ts";

/** HPACK, the header compression of HTTP/2 (RFC 7541): the decoder's side, bounded. */

/** One char an octet; the name is as written, upper case is for the reader to refuse. */
export interface HeaderField {
  readonly name: string;
  readonly value: string;
}

const TABLE_BYTES = 4096; // RFC 9113 §6.5.2: SETTINGS_HEADER_TABLE_SIZE before the peer says otherwise
const TABLE_BYTES_MAX = 65_536; // the most that a server may have allowed; they say 4096, few 64 KiB
const FIELD_OVERHEAD_BYTES = 32; // RFC 7541 §4.1, and of the list RFC 9113 §6.5.2
export const LIST_BYTES_MAX = 65_536; // of names and values: one octet of input can stand for a whole entry
const INTEGER_OCTETS_MAX = 4; // behind the prefix: up to 2^28

/** RFC 7541 Appendix A; entry 1 is the first. `name` or `name=value`. */
const STATIC: readonly HeaderField[] = (
  ":authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200 :status=204 :status=206 " +
  ":status=304 :status=400 :status=404 :status=500 accept-charset accept-encoding=gzip,+deflate accept-language accept-ranges accept " +
  "access-control-allow-origin age allow authorization cache-control content-disposition content-encoding content-language " +
  "content-length content-location content-range content-type cookie date etag expect expires from host if-match if-modified-since " +
  "if-none-match if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range " +
  "referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via www-authenticate"
)
  .split(" ")
  .map((entry) => {
    const [name = "", value = ""] = entry.split("=");
    return { name, value: value.replace("+", " ") };
  });

/** One direction of a connection: header blocks share the dynamic table, so all must pass, in order. */
export class HpackDecoder {
  /** The dynamic table, oldest first from `oldest` on. */
  private entries: HeaderField[] = [];
  private oldest = 0;
  private size = 0;
  private sizeMax = TABLE_BYTES;

  /** The fields of a whole header block, bytes[start..end). After `bad` the decoder is of no use any more (RFC 9113 §4.3). */
  decode(bytes: Uint8Array, start: number, end: number): HeaderField[] | Bad {
    const c = new Cursor(bytes, start, end);
    const fields: HeaderField[] = [];
    let listBytes = 0;
    while (c.left > 0) {
      const first = c.u8();
      if ((first & 0xe0) === 0x20) {
        const size = integer(c, first, 5);
        if (fields.length > 0 || size < 0 || size > TABLE_BYTES_MAX) return { bad: "a table size that HPACK does not allow" };
        this.sizeMax = size;
        this.evict(0);
        continue;
      }
      const field = (first & 0x80) !== 0 ? this.entry(integer(c, first, 7)) : this.literal(c, first);
      if (field === undefined) return { bad: "a header block that HPACK cannot read" };
      listBytes += field.name.length + field.value.length + FIELD_OVERHEAD_BYTES;
      if (listBytes > LIST_BYTES_MAX) return { bad: `a header list of more than ${LIST_BYTES_MAX} bytes` };
      fields.push(field);
    }
    return fields;
  }

  /** RFC 7541 §6.2: with or without (or never) an entry in the table; the name from the table, or written out. */
  private literal(c: Cursor, first: number): HeaderField | undefined {
    const indexed = (first & 0x40) !== 0;
    const index = integer(c, first, indexed ? 6 : 4);
    const name = index === 0 ? string(c) : this.entry(index)?.name;
    const value = string(c);
    if (name === undefined || value === undefined) return undefined;
    const field = { name, value };
    if (indexed) this.add(field);
    return field;
  }

  /** RFC 7541 §2.3.3: the static table, and behind it the dynamic one, newest first. */
  private entry(index: number): HeaderField | undefined {
    if (index <= STATIC.length) return STATIC[index - 1];
    const at = this.entries.length - (index - STATIC.length);
    return at < this.oldest ? undefined : this.entries[at];
  }

  /** An entry larger than the table empties it (RFC 7541 §4.4). */
  private add(field: HeaderField): void {
    const bytes = sizeOf(field);
    this.evict(bytes);
    if (bytes > this.sizeMax) return;
    this.entries.push(field);
    this.size += bytes;
  }

  private evict(room: number): void {
    while (this.oldest < this.entries.length && this.size + room > this.sizeMax)
      this.size -= sizeOf(this.entries[this.oldest++] as HeaderField);
    if (this.oldest < 1024 && this.oldest < this.entries.length) return;
    this.entries.splice(0, this.oldest);
    this.oldest = 0;
  }
}

function sizeOf({ name, value }: HeaderField): number {
  return name.length + value.length + FIELD_OVERHEAD_BYTES;
}

/** RFC 7541 §5.1: the low `bits` of `first`, and more octets when they are all ones; -1 when it is too long or cut. */
function integer(c: Cursor, first: number, bits: number): number {
  const mask = (1 << bits) - 1;
  let value = first & mask;
  if (value < mask) return value;
  for (let i = 0; i < INTEGER_OCTETS_MAX; i++) {
    const octet = c.u8();
    if (c.short) return -1;
    value += (octet & 0x7f) * 2 ** (7 * i);
    if (octet < 0x80) return value;
  }
  return -1;
}

/** RFC 7541 §5.2. */
function string(c: Cursor): string | undefined {
  const first = c.u8();
  const length = integer(c, first, 7);
  if (c.short || length < 0 || length > c.left) return undefined;
  const octets = c.view(length);
  if ((first & 0x80) !== 0) return decodeHuffman(octets, 0, length);
  return Buffer.from(octets.buffer, octets.byteOffset, length).toString("latin1");
}
