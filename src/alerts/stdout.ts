/** Lines waiting for a slow reader of stdout, bytes; what is over is lost and counted. */
const WAITING_BYTES_MAX = 8 * 1024 * 1024;

/** The default sink: one JSON event a line on stdout. Never waits, never throws. */
export function stdoutSink(stream: NodeJS.WritableStream & { writableLength?: number } = process.stdout): {
  write(line: string): void;
  readonly lost: number;
} {
  let lost = 0;
  let broken = false;
  stream.on("error", () => {
    broken = true; // the reader is gone; enforcement goes on
  });
  return {
    write: (line) => {
      if (broken || (stream.writableLength ?? 0) > WAITING_BYTES_MAX) lost++;
      else stream.write(`${line}\n`);
    },
    get lost() {
      return lost;
    },
  };
}
