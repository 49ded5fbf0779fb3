// What comes from the agent: events as they happen, status and destinations every few seconds while the page is seen.

const POLL_MS = 4000;
const AGAIN_MS = 2000;

/** `on`: { events(list), missed(count), run(id, again), link(state, text) }. */
export function follow(on) {
  let last;
  let run;
  const open = () => {
    const source = new EventSource(`/data/events${last === undefined ? "" : `?after=${encodeURIComponent(last)}`}`);
    source.onmessage = ({ data, lastEventId }) => {
      last = lastEventId;
      on.events(JSON.parse(data));
    };
    source.addEventListener("hello", ({ data }) => {
      const now = JSON.parse(data).run;
      on.run(now, run !== undefined && run !== now);
      run = now;
      on.link("live", "live");
    });
    source.addEventListener("missed", ({ data }) => on.missed(Number(data)));
    source.addEventListener("full", () => {
      source.close();
      on.link("lost", "too many viewers; close another one");
      setTimeout(open, 5 * AGAIN_MS);
    });
    source.onerror = () => {
      on.link("lost", "connection lost, trying again…");
      if (source.readyState !== EventSource.CLOSED) return;
      source.close();
      setTimeout(open, AGAIN_MS);
    };
  };
  open();
}

/** Asks again and again, but not while nobody looks. */
export function poll(path, take, fail) {
  let etag;
  let timer;
  const ask = async () => {
    clearTimeout(timer);
    try {
      const answer = await fetch(path, { headers: etag === undefined ? {} : { "if-none-match": etag } });
      if (answer.status === 200) {
        etag = answer.headers.get("etag") ?? undefined;
        take(await answer.json());
      } else if (answer.status !== 304) fail(`${path}: ${answer.status} ${(await answer.text()).slice(0, 200)}`);
    } catch {
      fail(undefined);
    }
    timer = setTimeout(() => {
      if (!document.hidden) void ask();
    }, POLL_MS);
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) void ask();
  });
  void ask();
  return ask;
}
