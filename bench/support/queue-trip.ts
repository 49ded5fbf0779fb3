import { addon, NfVerdict, RECORD_WORDS, RecordWord } from "../../src/base/addon.ts";

/**
 * The least that a first payload through a queue can cost: every packet of queue `argv[2]` comes back at once, unread, with
 * the mark `argv[3]`. Runs until it is killed.
 */
const [queueNumber, mark] = process.argv.slice(2).map(Number) as [number, number];
const queue = new (addon().PacketQueue)({
  queue: queueNumber,
  copyRange: 4096,
  maxLength: 1024,
  receiveBuffer: 1 << 20,
  batch: 64,
  gso: true,
  failOpen: false,
  deadlineMs: 2000,
  deadlineVerdict: NfVerdict.drop,
});
queue.start(
  (count) => {
    for (let i = 0; i < count; i++) {
      queue.verdicts[2 * i] = NfVerdict.repeat;
      queue.verdicts[2 * i + 1] = ((queue.records[i * RECORD_WORDS + RecordWord.mark] as number) | mark) >>> 0;
    }
  },
  (what, detail) => console.error(`queue-trip: ${what} ${detail}`),
);
console.log("ready");
