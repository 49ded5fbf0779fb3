// The list of verdicts: only the rows that can be seen are elements, however many events there are.
import { $, framed, h, setText } from "./dom.mjs";
import { addressText, clock, isAlarm, millis, nameOf, podText, verdictOf, whyText } from "./words.mjs";

const OVERSCAN = 6;

function makeRow() {
  const parts = {
    time: h("span", { class: "time" }),
    ms: h("span", { class: "ms" }),
    icon: h("span", { class: "icon", "aria-hidden": "true" }),
    word: h("span"),
    badge: h("span", { class: "badge" }),
    count: h("span", { class: "times" }),
    pod: h("span", { class: "pod" }),
    name: h("span", { class: "name" }),
    address: h("span", { class: "address" }),
    why: h("span", { class: "why" }),
    rule: h("span", { class: "rule" }),
  };
  parts.badge.append(parts.icon, parts.word);
  const row = h(
    "div",
    { role: "option", class: "row" },
    h("span", { class: "cell c-time" }, parts.time, parts.ms),
    h("span", { class: "cell c-verdict" }, parts.badge, parts.count),
    h("span", { class: "cell c-pod" }, parts.pod),
    h("span", { class: "cell c-to" }, parts.name, parts.address),
    h("span", { class: "cell c-why" }, parts.why, parts.rule),
  );
  return { row, parts, entry: undefined, index: -1 };
}

function ruleOf({ policy, rule, nearest }) {
  if (rule) return `${policy}/${rule}`;
  return nearest ? `nearest ${nearest.policy}/${nearest.rule}: ${nearest.clause}` : "";
}

function fillRow({ row, parts }, { event }) {
  const alarm = isAlarm(event);
  const { icon, word } = alarm ? { icon: "!", word: "Alarm" } : verdictOf(event.verdict);
  setText(parts.time, clock(event.time));
  setText(parts.ms, millis(event.time));
  setText(parts.icon, icon);
  setText(parts.word, word);
  setText(parts.count, event.count > 1 ? `×${event.count}` : "");
  setText(parts.pod, podText(event.pod) || event.policy || "agent");
  const name = nameOf(event);
  setText(parts.name, name || addressText(event.destination) || (event.message ?? ""));
  setText(parts.address, name === "" ? "" : addressText(event.destination));
  setText(parts.why, event.why ?? (event.verdict === "allow" ? "first use" : ""));
  setText(parts.rule, event.destination === null && event.pod !== null ? (event.message ?? "") : ruleOf(event));
  row.className = `row v-${event.verdict}${alarm ? " alarm" : ""}`;
  row.id = `e-${event.id}`;
  row.title = whyText(event.why) ?? event.message?.slice(0, 300) ?? "";
}

export class List {
  selected;
  top = 0;
  /** New rows that came while the reader was further down. */
  unseen = 0;
  pool = [];

  constructor(store, open) {
    this.store = store;
    this.open = open;
    this.box = $("list");
    this.rows = $("rows");
    this.draw = framed(() => this.drawNow());
    this.box.addEventListener("scroll", () => this.draw(), { passive: true });
    this.box.addEventListener("keydown", (e) => this.key(e));
    this.rows.addEventListener("click", ({ target }) => {
      const index = this.pool.find(({ row }) => row.contains(target))?.index ?? -1;
      if (index >= 0) this.select(index, true);
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
  }

  get height() {
    return Number.parseFloat(getComputedStyle(this.box).getPropertyValue("--row")) || 34;
  }

  /** The latest is row 0. */
  at(index) {
    const { shown } = this.store;
    return shown[shown.length - 1 - index];
  }

  /** `added` new rows at the top: who reads further down keeps what he reads. */
  changed(added) {
    this.pending = (this.pending ?? 0) + added;
    this.draw();
  }

  /** Other filters: from the top. */
  reset() {
    this.pending = 0;
    this.unseen = 0;
    this.box.scrollTop = 0;
    this.draw();
  }

  drawNow() {
    const row = this.height;
    const { shown } = this.store;
    const wanted = `${shown.length * row}px`;
    if (this.rows.style.height !== wanted) this.rows.style.height = wanted;
    if (this.pending > 0 && this.box.scrollTop > row / 2) {
      this.unseen += this.pending;
      this.box.scrollTop += this.pending * row;
    }
    this.pending = 0;
    if (this.box.scrollTop <= row / 2) this.unseen = 0;
    const first = Math.max(0, Math.floor(this.box.scrollTop / row) - OVERSCAN);
    const last = Math.min(shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / row) + OVERSCAN);
    for (let i = 0; i < Math.max(last - first, this.pool.length); i++) this.place(i, first + i, last, row);
    const { selected } = this;
    const active = selected === undefined ? undefined : this.pool.find(({ entry, row: r }) => entry === selected && !r.hidden);
    if (active === undefined) this.box.removeAttribute("aria-activedescendant");
    else this.box.setAttribute("aria-activedescendant", active.row.id);
    this.drawn?.();
  }

  place(i, index, last, height) {
    let one = this.pool[i];
    if (one === undefined) {
      one = makeRow();
      this.pool.push(one);
      this.rows.append(one.row);
    }
    one.row.hidden = index >= last;
    one.index = index >= last ? -1 : index;
    if (index >= last) return;
    const entry = this.at(index);
    if (one.entry !== entry) {
      one.entry = entry;
      fillRow(one, entry);
    }
    one.row.style.transform = `translateY(${index * height}px)`;
    one.row.setAttribute("aria-posinset", index + 1);
    one.row.setAttribute("aria-setsize", this.store.shown.length);
    one.row.setAttribute("aria-selected", entry === this.selected ? "true" : "false");
  }

  select(index, open) {
    const entry = this.at(index);
    if (entry === undefined) return;
    this.selected = entry;
    const row = this.height;
    const y = index * row;
    if (y < this.box.scrollTop) this.box.scrollTop = y;
    else if (y + row > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = y + row - this.box.clientHeight;
    this.draw();
    if (open) this.open(entry.event);
  }

  key(e) {
    const { shown } = this.store;
    const now = this.selected === undefined ? -1 : shown.length - 1 - shown.lastIndexOf(this.selected);
    const known = now >= 0 && now < shown.length ? now : -1;
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height) - 1);
    const moves = {
      ArrowDown: known + 1,
      ArrowUp: known - 1,
      PageDown: known + page,
      PageUp: known - page,
      Home: 0,
      End: shown.length - 1,
    };
    if (e.key === "Enter" || e.key === " ") {
      if (this.selected !== undefined) this.open(this.selected.event);
    } else if (Object.hasOwn(moves, e.key)) this.select(Math.max(0, Math.min(shown.length - 1, moves[e.key])), this.follows?.() ?? false);
    else return;
    e.preventDefault();
  }
}
