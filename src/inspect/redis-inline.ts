/**
 * Redis commands as plain lines, as typed into telnet or sent by health checks. Only those count that no other protocol of
 * lines has (HTTP, SMTP, POP3, IMAP, FTP, IRC, NATS, STOMP, memcached); a word that others have too needs Redis' answer.
 */

/** Names with the number of arguments, at least and at most. */
const COMMANDS: Readonly<Record<string, readonly [number, number]>> = {
  bgsave: [0, 1],
  blpop: [2, 64],
  brpop: [2, 64],
  client: [1, 16],
  cluster: [1, 16],
  command: [0, 16],
  config: [1, 16],
  dbsize: [0, 0],
  decr: [1, 1],
  decrby: [2, 2],
  del: [1, 64],
  eval: [2, 64],
  evalsha: [2, 64],
  exists: [1, 64],
  expire: [2, 3],
  flushall: [0, 1],
  flushdb: [0, 1],
  hello: [1, 7],
  hget: [2, 2],
  hgetall: [1, 1],
  hmget: [2, 64],
  hset: [3, 64],
  incr: [1, 1],
  incrby: [2, 2],
  keys: [1, 1],
  llen: [1, 1],
  lpop: [1, 2],
  lpush: [2, 64],
  lrange: [3, 3],
  mget: [1, 64],
  monitor: [0, 0],
  mset: [2, 64],
  psubscribe: [1, 64],
  psync: [2, 3],
  publish: [2, 2],
  replconf: [1, 16],
  replicaof: [2, 2],
  rpop: [1, 2],
  rpush: [2, 64],
  sadd: [2, 64],
  scan: [1, 8],
  set: [2, 3],
  setex: [3, 3],
  setnx: [2, 2],
  slaveof: [2, 2],
  slowlog: [1, 3],
  smembers: [1, 1],
  ttl: [1, 1],
  xadd: [4, 64],
  zadd: [3, 64],
  zrange: [3, 8],
};
const DATABASE_CHARS_MAX = 4; // SELECT
const ERRORS = ["-NOAUTH ", "-DENIED ", "-LOADING ", "-MISCONF ", "-NOPERM "];
/** Words that begin a line of HTTP, POP3, SMTP, IRC, NATS or memcached too, with the begins of what Redis answers. */
const REPLIES: Readonly<Record<string, readonly string[]>> = {
  auth: ["-WRONGPASS ", "-ERR invalid pass", "-ERR Client sent ", "-ERR AUTH <passw"],
  get: ["$-1\r\n", "$0\r\n", ...digits("$"), "_\r\n"],
  info: ["$", "="],
  ping: ["+PONG\r\n"],
};

function digits(mark: string): string[] {
  return Array.from({ length: 9 }, (_, i) => `${mark}${i + 1}`);
}

/** All words that a line may begin with. */
export const INLINE_WORDS: readonly string[] = [...Object.keys(COMMANDS), "select", ...Object.keys(REPLIES)];

export function isInlineCommand(name: string, given: readonly string[]): boolean {
  const lower = name.toLowerCase();
  if (lower === "select") return given.length === 1 && isNumber(given[0] as string);
  const range = Object.hasOwn(COMMANDS, lower) ? COMMANDS[lower] : undefined;
  return range !== undefined && given.length >= range[0] && given.length <= range[1];
}

/** How the answer to a line that others could have sent begins, if it is a command of Redis at all. */
export function inlineReplies(name: string, given: readonly string[]): readonly string[] | undefined {
  const lower = name.toLowerCase();
  if (!Object.hasOwn(REPLIES, lower) || given.length > 2 || (lower === "get" && given.length !== 1)) return undefined;
  return [...(REPLIES[lower] ?? []), ...ERRORS];
}

function isNumber(text: string): boolean {
  return text !== "" && text.length <= DATABASE_CHARS_MAX && String(Number(text)) === text;
}
