import type { Ip } from "../base/address.ts";

/** Decisions that the kernel was told for a while: address and port → the second in which it forgets. Bounded. */
export class Decisions {
  size = 0;
  private readonly max: number;
  private readonly byAddress = new Map<Ip, Map<number, number>>();
  /** Packets that the kernel's element has counted, of those that have counted any. */
  private readonly counted = new Map<Ip, Map<number, number>>();

  constructor(max: number) {
    this.max = max;
  }

  /** False: there is no room, and the kernel is not to be told. */
  put(address: Ip, portKey: number, expires: number): boolean {
    let ports = this.byAddress.get(address);
    if (ports === undefined || !ports.has(portKey)) {
      if (this.size >= this.max) return false;
      if (ports === undefined) this.byAddress.set(address, (ports = new Map()));
      this.size++;
    }
    ports.set(portKey, expires);
    return true;
  }

  has(address: Ip, portKey: number, now: number): boolean {
    return (this.byAddress.get(address)?.get(portKey) ?? 0) > now;
  }

  /** Takes in how many packets the kernel has counted; returns how many of them are new. */
  count(address: Ip, portKey: number, packets: number): number {
    let ports = this.counted.get(address);
    if (packets === (ports?.get(portKey) ?? 0)) return 0;
    if (ports === undefined) this.counted.set(address, (ports = new Map()));
    const more = packets - (ports.get(portKey) ?? 0);
    ports.set(portKey, packets);
    return Math.max(0, more);
  }

  /** Forgets one address, and tells `undo` of each port. */
  forget(address: Ip, undo: (address: Ip, portKey: number) => void): void {
    const ports = this.byAddress.get(address);
    if (ports === undefined) return;
    this.byAddress.delete(address);
    this.counted.delete(address);
    this.size -= ports.size;
    for (const portKey of ports.keys()) undo(address, portKey);
  }

  clear(undo: (address: Ip, portKey: number) => void): void {
    for (const address of this.byAddress.keys()) this.forget(address, undo);
  }

  /** Forgets what the kernel has forgotten by itself. */
  sweep(now: number): void {
    for (const [address, ports] of this.byAddress) {
      for (const [portKey, expires] of ports) {
        if (expires > now) continue;
        ports.delete(portKey);
        this.counted.get(address)?.delete(portKey);
        this.size--;
      }
      if (ports.size > 0) continue;
      this.byAddress.delete(address);
      this.counted.delete(address);
    }
  }
}
