// Leases between two ends of one tunnel: each shows its own at tunnel start and at every renewal, resent with backoff
// until the other acknowledges it; packets that overtake the other end's lease wait, a few and briefly. Deadlines are
// derived, nothing is armed.
import { LEASE_HELD_MS, LEASE_HELD_PACKETS_MAX, LEASE_RESEND_FIRST_MS, LEASE_RESEND_MAX_MS } from "../base/limits.ts";
import { Ring } from "../base/ring.ts";
import type { VerifiedLease } from "./desired-state.ts";

export type LeaseAnswer = "accepted" | "known" | "older" | "other-epoch" | "other-session" | "unverified";

export class LeaseExchange {
  readonly #session: string;
  #remote: VerifiedLease | undefined;
  /** Serial of ours that the other end has not acknowledged, with its epoch. */
  #unacknowledged: { epoch: number; serial: number } | undefined;
  #lastShownMs = 0;
  #shownCount = 0;
  readonly #held = new Ring<Uint8Array>(LEASE_HELD_PACKETS_MAX);
  #heldSinceMs: number | undefined;

  /** `session`: the remote end's. */
  constructor(session: string) {
    this.#session = session;
  }

  get remote(): VerifiedLease | undefined {
    return this.#remote;
  }

  get heldPackets(): number {
    return this.#held.size;
  }

  /**
   * `epoch` is the one that the signed netmap names. A lower serial of it is refused; the same again is acknowledged
   * again, its acknowledgement was lost.
   */
  accept(lease: VerifiedLease | undefined, epoch: number): LeaseAnswer {
    if (lease === undefined) return "unverified";
    if (lease.session !== this.#session) return "other-session";
    if (lease.epoch !== epoch) return "other-epoch";
    const known = this.#remote;
    if (known !== undefined && known.epoch === epoch) {
      if (lease.serial < known.serial) return "older";
      if (lease.serial === known.serial) return "known";
    }
    this.#remote = lease;
    return "accepted";
  }

  /** The tunnel it was shown in is gone. */
  forgetRemote(): void {
    this.#remote = undefined;
  }

  /** Ours has just been sent to the other end. */
  shown(nowMs: number, epoch: number, serial: number): void {
    const again = this.#unacknowledged?.epoch === epoch && this.#unacknowledged.serial === serial;
    this.#unacknowledged = { epoch, serial };
    this.#lastShownMs = nowMs;
    this.#shownCount = again ? this.#shownCount + 1 : 1;
  }

  acknowledged(epoch: number, serial: number): void {
    if (this.#unacknowledged?.epoch === epoch && this.#unacknowledged.serial === serial)
      this.#unacknowledged = undefined;
  }

  /** The tunnel is gone: nothing to resend, nothing to hold. */
  reset(): void {
    this.#unacknowledged = undefined;
    this.#held.clear();
    this.#heldSinceMs = undefined;
  }

  isResendDue(nowMs: number): boolean {
    return this.#unacknowledged !== undefined && nowMs >= this.#resendMs();
  }

  /** False when full: dropped, to be counted by the caller. The packet is copied. */
  hold(nowMs: number, buffer: Uint8Array, offset: number, length: number): boolean {
    if (this.#held.size === this.#held.capacity) return false;
    this.#heldSinceMs ??= nowMs;
    return this.#held.push(buffer.slice(offset, offset + length));
  }

  /** All that waited, in order. */
  release(): Uint8Array[] {
    const packets: Uint8Array[] = [];
    for (let packet = this.#held.shift(); packet !== undefined; packet = this.#held.shift()) packets.push(packet);
    this.#heldSinceMs = undefined;
    return packets;
  }

  /** How many packets were dropped because the lease did not come in time. */
  dropOverdue(nowMs: number): number {
    if (nowMs < this.#heldUntilMs()) return 0;
    return this.release().length;
  }

  nextDeadlineMs(): number {
    const resendMs = this.#unacknowledged === undefined ? Number.POSITIVE_INFINITY : this.#resendMs();
    return Math.min(resendMs, this.#heldUntilMs());
  }

  #heldUntilMs(): number {
    return (this.#heldSinceMs ?? Number.POSITIVE_INFINITY) + LEASE_HELD_MS;
  }

  #resendMs(): number {
    const backoffMs = LEASE_RESEND_FIRST_MS * 2 ** Math.min(this.#shownCount - 1, 10);
    return this.#lastShownMs + Math.min(backoffMs, LEASE_RESEND_MAX_MS);
  }
}
