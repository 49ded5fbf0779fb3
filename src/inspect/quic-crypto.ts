import type { Bad } from "../base/cursor.ts";
import { Cursor } from "../base/cursor.ts";
import { type Pieces, PIECES_BYTES_MAX } from "./pieces.ts";
import { varint } from "./quic-packet.ts";

/**
 * The CRYPTO frames of Initial packets (RFC 9000 §19.6), put together: clients cut the ClientHello into many frames and shuffle
 * them over packets; frames come twice, and overlap.
 */

const Frame = { padding: 0x00, ping: 0x01, ack: 0x02, ackEcn: 0x03, crypto: 0x06, close: 0x1c } as const;
/** The number that CRYPTO has in Google's own versions; elsewhere that is a STREAM. */
const GOOGLE_CRYPTO = 0x08;

/** Adds the CRYPTO frames of an opened Initial to `stream`; answers what is wrong with the frames. */
export function addFrames(frames: Uint8Array, stream: Pieces, google: boolean): Bad | undefined {
  const c = new Cursor(frames);
  while (c.left > 0 && !c.short) {
    const type = c.u8();
    switch (type) {
      case Frame.padding:
      case Frame.ping:
        break;
      case Frame.ack:
      case Frame.ackEcn:
        skipAck(c, type === Frame.ackEcn);
        break;
      case Frame.crypto:
        if (!addCrypto(c, stream)) return TOO_MUCH;
        break;
      case Frame.close:
        return undefined; // the rest does not matter
      default:
        if (google && type === GOOGLE_CRYPTO) {
          if (!addCrypto(c, stream)) return TOO_MUCH;
          break;
        }
        return { bad: `a frame of type ${type} in an Initial` }; // RFC 9000 §12.5
    }
  }
  return c.short ? { bad: "a frame longer than its packet" } : undefined;
}

const TOO_MUCH: Bad = { bad: `a ClientHello of more than ${PIECES_BYTES_MAX} bytes` };

function addCrypto(c: Cursor, stream: Pieces): boolean {
  const offset = varint(c);
  const data = c.view(varint(c));
  return c.short || stream.add(offset, data);
}

/** RFC 9000 §19.3. */
function skipAck(c: Cursor, ecn: boolean): void {
  varint(c); // largest
  varint(c); // delay
  const ranges = varint(c);
  varint(c); // first range
  for (let i = 0; i < ranges && !c.short; i++) {
    varint(c);
    varint(c);
  }
  for (let i = 0; ecn && i < 3; i++) varint(c);
}
