import type { Event } from "../model/event.ts";

const HISTORY_MAX = 10_000;
/** A follower that does not read is cut off rather than waited for. */
const FOLLOWERS_MAX = 64;

export type Follower = (event: Event) => boolean;

/** The latest events, and those who want to see the next ones. A follower that returns false is dropped. */
export class History {
  private readonly ring: Event[] = [];
  private at = 0;
  private readonly followers = new Set<Follower>();
  total = 0;

  push(event: Event): void {
    this.total++;
    if (this.ring.length < HISTORY_MAX) this.ring.push(event);
    else {
      this.ring[this.at] = event;
      this.at = (this.at + 1) % HISTORY_MAX;
    }
    for (const follower of this.followers) if (!follower(event)) this.followers.delete(follower);
  }

  /** The last `count`, oldest first. */
  last(count: number): Event[] {
    const ordered = [...this.ring.slice(this.at), ...this.ring.slice(0, this.at)];
    return ordered.slice(Math.max(0, ordered.length - count));
  }

  find(id: string): Event | undefined {
    return this.ring.find((event) => event.id === id);
  }

  /** The oldest that is still here. */
  get oldest(): Event | undefined {
    return this.ring[this.ring.length < HISTORY_MAX ? 0 : this.at];
  }

  /** How many of `total` are no longer here. */
  get forgotten(): number {
    return this.total - this.ring.length;
  }

  /** At most `count` of those behind the first `seen` of all, oldest first. */
  after(seen: number, count: number): Event[] {
    const from = Math.max(seen, this.forgotten);
    const length = Math.max(0, Math.min(count, this.total - from));
    return Array.from({ length }, (_, i) => this.ring[(from + i) % HISTORY_MAX] as Event);
  }

  /** False when there are too many. */
  follow(follower: Follower): boolean {
    if (this.followers.size >= FOLLOWERS_MAX) return false;
    this.followers.add(follower);
    return true;
  }

  unfollow(follower: Follower): void {
    this.followers.delete(follower);
  }
}
