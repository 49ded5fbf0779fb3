import type { NetlinkSocket } from "../base/addon.ts";
import { AF_UNSPEC, NLM_F_ACK, NLM_F_REQUEST, sequences, Writer } from "../base/netlink.ts";
import { exchange, REPLY_BYTES } from "../base/netlink-exchange.ts";
import { Attributes } from "../base/netlink-read.ts";

const GET_GENERATION = (10 << 8) | 16;
const NEW_GENERATION = (10 << 8) | 15;
const GENERATION_ID = 1;

/**
 * Asks for the nf_tables generation id of this network namespace: it grows with every change of rules made through
 * nf_tables (iptables-nft included, iptables-legacy not). undefined: the kernel has no nf_tables, or did not answer.
 */
export function rulesGeneration(socket: NetlinkSocket): () => number | undefined {
  const request = new Writer(64);
  const reply = Buffer.alloc(REPLY_BYTES);
  const attributes = new Attributes();
  return () => {
    const seq = sequences(1);
    request.reset();
    const message = request.begin(GET_GENERATION, NLM_F_REQUEST | NLM_F_ACK, seq, AF_UNSPEC);
    request.end(message);
    let generation: number | undefined;
    exchange(socket, request.bytes, request.at, seq, 1, reply, (answer) => {
      if (answer.type !== NEW_GENERATION) return;
      attributes.reset(answer.bytes, answer.payload, answer.end);
      while (attributes.next()) if (attributes.type === GENERATION_ID) generation = attributes.u32();
    });
    return generation;
  };
}
