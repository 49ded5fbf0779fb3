// The page of one agent: live verdicts, who goes where, what is new, which policies hold. It only reads.
import { $, framed, h, setText } from "./dom.mjs";
import { Detail } from "./explain.mjs";
import { follow, poll } from "./feed.mjs";
import { List } from "./list.mjs";
import { showMode, showNew, showPolicies, showTiles, showWarnings } from "./panels.mjs";
import { edgesOf, Picture } from "./picture.mjs";
import { fromHash, Store, toHash } from "./store.mjs";
import { nameOf, number, plural, VERDICTS } from "./words.mjs";

const MINUTES = 60;
const TILES_MS = 1000;
/** Nobody reads faster; one event alone is shown in the next frame. */
const ARRIVALS_MS = 120;

const store = new Store();
let status;
let host = "";
let destinations = { sinceMs: 0, workloads: [] };
let edges = [];
let paused = false;
const waiting = [];
const WAITING_MAX = 10_000;

const list = new List(store, (event) => {
  picture.select(undefined);
  detail.event(event);
});
list.follows = () => detail.open;
const detail = new Detail({
  filter: (filter) => applyFilter({ verdicts: [], text: "", namespace: "", policy: "", why: "", ...filter }),
  latest: ({ namespace, workload, to }) =>
    store.latest(
      (event) =>
        event.pod?.namespace === namespace && event.pod.name.startsWith(workload) && (nameOf(event) || event.destination?.address) === to,
    ),
  edge: (edge) => {
    picture.select(edge);
    detail.edge(edge);
  },
  suggest: async (id) => (await fetch(`/data/suggestion?event=${encodeURIComponent(id)}`)).json(),
  closed: () => {
    if (picture.selected !== undefined) picture.select(undefined);
  },
});
const picture = new Picture({
  edge: (edge) => detail.edge(edge),
  workload: ({ namespace, workload }) =>
    detail.workload(
      { namespace, workload },
      edges.filter((edge) => edge.namespace === namespace && edge.workload === workload),
    ),
  destination: (to, of) => detail.destination(to, of),
});

const midnight = () => new Date().setHours(0, 0, 0, 0);

// Verdicts

const chips = Object.entries(VERDICTS).map(([verdict, { icon, word }]) => {
  const count = h("span", { class: "dim" });
  const chip = h(
    "button",
    { type: "button", class: `chipbutton v-${verdict}`, "aria-pressed": "false", click: () => toggle(verdict) },
    h("span", { class: "icon", "aria-hidden": "true" }, icon),
    word,
    " ",
    count,
  );
  return { verdict, chip, count };
});
$("verdict-filter").append(...chips.map(({ chip }) => chip));

function toggle(verdict) {
  const { verdicts } = store.filter;
  applyFilter({ verdicts: verdicts.includes(verdict) ? verdicts.filter((one) => one !== verdict) : [...verdicts, verdict] });
}

function applyFilter(filter) {
  store.set(filter);
  const hash = toHash(store.filter);
  if (location.hash.slice(1) !== hash) history.replaceState(null, "", hash === "" ? location.pathname : `#${hash}`);
  showFilter();
  list.reset();
}

function showFilter() {
  const { verdicts, text, namespace, policy, why } = store.filter;
  for (const { verdict, chip } of chips) chip.setAttribute("aria-pressed", String(verdicts.includes(verdict)));
  if ($("search").value !== text) $("search").value = text;
  choices($("namespace"), "All namespaces", store.namespaces, namespace);
  choices($("policy"), "All policies", store.policies, policy);
  choices($("why"), "Any why", store.whys, why);
  $("clear").hidden = !store.filtered;
}

function choices(select, all, set, value) {
  const wanted = [...new Set([...set, ...(value === "" ? [] : [value])])].sort((a, b) => a.localeCompare(b));
  if (select.dataset.options !== wanted.join("\n") || select.options.length === 0) {
    select.dataset.options = wanted.join("\n");
    select.replaceChildren(h("option", { value: "" }, all), ...wanted.map((one) => h("option", { value: one }, one)));
  }
  select.value = value;
}

list.drawn = () => {
  const { shown, entries, counts } = store;
  const missed = store.missed > 0 ? ` · ${number(store.missed)} came faster than they could be shown` : "";
  setText($("count"), `${store.filtered ? `${number(shown.length)} of ` : ""}${plural(entries.length, "event")}${missed}`);
  for (const { verdict, count } of chips) setText(count, number(counts[verdict]));
  const held = paused ? waiting.length : list.unseen;
  $("newer").hidden = held === 0;
  setText($("newer"), `▲ ${number(held)} new`);
  const empty = $("empty");
  empty.hidden = shown.length > 0;
  setText(
    empty,
    entries.length === 0
      ? "No event yet. The first use of each rule by a pod, and everything that is denied, appears here at once."
      : "No event passes the filters.",
  );
};

/** New choices in the selects, seldom. */
let choicesKnown = 0;
function learnChoices() {
  const known = store.namespaces.size + store.policies.size + store.whys.size;
  if (known === choicesKnown) return;
  choicesKnown = known;
  showFilter();
}

let incoming = [];
const takeIncoming = framed(() => {
  const added = store.push(incoming);
  incoming = [];
  list.changed(added);
  learnChoices();
  tilesWanted = true;
}, ARRIVALS_MS);
function take(events) {
  if (paused) {
    waiting.push(...events);
    if (waiting.length > WAITING_MAX) waiting.splice(0, waiting.length - WAITING_MAX);
    list.draw();
    return;
  }
  incoming.push(...events);
  takeIncoming();
}

function pause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  setText($("pause"), on ? "Resume" : "Pause");
  if (!on) take(waiting.splice(0));
}
$("pause").addEventListener("click", () => pause(!paused));
$("newer").addEventListener("click", () => {
  if (paused) pause(false);
  $("list").scrollTop = 0;
  list.draw();
});
$("clear").addEventListener("click", () => applyFilter({ verdicts: [], text: "", namespace: "", policy: "", why: "" }));
let typing;
$("search").addEventListener("input", ({ target }) => {
  clearTimeout(typing);
  typing = setTimeout(() => applyFilter({ text: target.value.slice(0, 300) }), 80);
});
for (const id of ["namespace", "policy", "why"]) $(id).addEventListener("change", ({ target }) => applyFilter({ [id]: target.value }));
addEventListener("hashchange", () => applyFilter(fromHash(location.hash)));
addEventListener("keydown", (e) => {
  if (e.key !== "/" || e.ctrlKey || e.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName ?? "")) return;
  e.preventDefault();
  $("search").focus();
});

// Tiles and panels

let tilesWanted = true;
setInterval(() => {
  if (!tilesWanted || document.hidden) return;
  tilesWanted = false;
  const view = { status, edges, minutes: store.minutes(MINUTES, Date.now()), fromMs: store.fromMs, midnightMs: midnight() };
  showTiles(view, {
    coverage: () => status !== undefined && detail.coverage(status),
    verdict: (verdict) => applyFilter({ verdicts: [verdict] }),
    fresh: () => $("new").scrollIntoView({ block: "center" }),
  });
}, TILES_MS);
setInterval(() => {
  tilesWanted = true;
}, 20_000);

function openPolicy(name) {
  const policy = status?.policies?.find((one) => one.name === name);
  if (policy !== undefined) detail.policy(policy, status);
}

const unreachable = (words) => {
  if (words !== undefined) link("lost", words);
};
const askStatus = poll(
  "/data/status",
  (answer) => {
    ({ status, host } = answer);
    showMode(status, host);
    showWarnings(status);
    showPolicies(status, openPolicy);
    tilesWanted = true;
  },
  unreachable,
);
const askDestinations = poll(
  "/data/destinations",
  (answer) => {
    destinations = answer;
    edges = edgesOf(destinations);
    picture.set(edges);
    showNew(edges, destinations.sinceMs, midnight(), (edge) => {
      picture.select(edge);
      detail.edge(edge);
    });
    tilesWanted = true;
  },
  unreachable,
);

function link(state, text) {
  const box = $("link");
  box.className = `link ${state}`;
  setText(box, text);
  if (state === "lost") $("mode").classList.add("stale");
}

store.set(fromHash(location.hash));
showFilter();
list.draw();
follow({
  events: take,
  missed: (count) => {
    store.missed += count;
  },
  run: (_, again) => {
    if (!again) return;
    void askStatus();
    void askDestinations();
  },
  link,
});
