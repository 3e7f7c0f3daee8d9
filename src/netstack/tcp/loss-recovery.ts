// What is lost, when it goes again, and what that says of the path: RFC 6675 and 8985 with SACK, RFC 6582 without; tail
// loss probes (RFC 8985 §7); losses that were none are undone by timestamps (RFC 3522, 4015). The scoreboard knows the
// segments, RACK the times, the congestion window how much may go.
import { Congestion, type CongestionName } from "./congestion.ts";
import { DUPLICATE_ACKS_MAX, Rack } from "./rack.ts";
import { RttEstimator } from "./rtt.ts";
import { Scoreboard } from "./scoreboard.ts";
import type { Segment } from "./segment.ts";
import { sequenceAfter, sequenceBefore, sequenceDifference } from "./sequence.ts";
import type { Timestamps } from "./timestamps.ts";

const OPEN = 0;
/** Fast recovery: told by acknowledgments. */
const RECOVERY = 1;
/** After a retransmission timeout. */
const TIMEOUT = 2;
/** All goes again, for no fault of the path's congestion. */
const RESTART = 3;
type Mode = typeof OPEN | typeof RECOVERY | typeof TIMEOUT | typeof RESTART;

const PROBE_WITHOUT_RTT_MS = 1_000; // RFC 8985 §7.2
/** What a lone segment's acknowledgment may be held back at the other end (§7.2, TLP.max_ack_delay). */
const PROBE_ALONE_MS = 200;
/** Processes wait for the CPU: on a short path two round trips are soon over. */
const PROBE_PATIENCE_MS = 10;
/** What echoes an older segment says nothing of the path. */
const ECHO_MAX_MS = 60_000;

interface Probe {
  /** TLP.end_seq */
  readonly end: number;
  readonly isResent: boolean;
}

export class LossRecovery {
  readonly scoreboard: Scoreboard;
  readonly rack: Rack;
  readonly congestion: Congestion;
  readonly rtt = new RttEstimator();
  readonly #timestamps: Timestamps;
  /** Both SYNs permitted it. */
  usesSack = false;
  mssBytes: number;
  #mode: Mode = OPEN;
  /** RecoveryPoint: what was sent before the loss was found. */
  #end: number | undefined;
  /** Without SACK: acknowledgments that said the same again. */
  #duplicates = 0;
  /** Each of them for a segment that has left the network: what the next that moves on counts no second time. */
  #creditBytes = 0;
  /** TSval of the first segment sent again in this recovery. */
  #firstResent: number | undefined;
  /** Only what was judged lost can turn out to have been late, not what goes again for another reason. */
  #mayUndo = false;
  #probe: Probe | undefined;

  constructor(
    initialSequence: number,
    mssBytes: number,
    windowMaxBytes: number,
    timestamps: Timestamps,
    name: CongestionName,
  ) {
    this.scoreboard = new Scoreboard(initialSequence);
    this.rack = new Rack(initialSequence);
    this.congestion = new Congestion(mssBytes, windowMaxBytes, name);
    this.#timestamps = timestamps;
    this.mssBytes = mssBytes;
  }

  get isRecovering(): boolean {
    return this.#mode !== OPEN;
  }

  /** A tail loss probe waits for its answer, which may come when nothing is outstanding any more. */
  get hasProbe(): boolean {
    return this.#probe !== undefined;
  }

  /** How many more bytes the congestion window lets go. */
  get roomBytes(): number {
    return Math.floor(this.congestion.windowBytes - this.#pipeBytes);
  }

  get #pipeBytes(): number {
    return Math.max(0, this.scoreboard.pipeBytes - this.#creditBytes);
  }

  /**
   * An acknowledgment of ours: of new data, or what it says again. `una`: SND.UNA before it. `isRepeat`: a duplicate as
   * RFC 5681 §2 has it. `isLimit`: the congestion window kept more from being sent.
   */
  acknowledged(nowMs: number, segment: Segment, una: number, next: number, isRepeat: boolean, isLimit: boolean): void {
    const { acknowledgment } = segment;
    const { rack, scoreboard, congestion } = this;
    const isNew = sequenceAfter(acknowledgment, una);
    const lostBefore = scoreboard.lostSegments;
    const echoedMs = this.#echoedMs(nowMs, segment);
    rack.begin(nowMs, echoedMs);
    const newBytes = isNew ? scoreboard.acknowledge(acknowledgment, rack) : 0;
    const lostAfter = scoreboard.lostSegments;
    const namedBytes = this.usesSack ? scoreboard.sack(segment.options.sackEdges, segment.options.sackBlocks, rack) : 0;
    if (rack.rttSampleMs >= 0) this.rtt.sample(rack.rttSampleMs);
    else if (isNew && echoedMs >= 0) this.rtt.sample(echoedMs); // RFC 7323 §4.1: also of what was sent twice
    if (isNew) {
      this.rtt.progress();
      if (this.#wasLate(segment)) this.#undo();
    }
    const hasDuplicate = this.usesSack && isDuplicateNamed(segment);
    if (hasDuplicate && !this.#isOfProbe(segment)) rack.duplicateArrived(acknowledgment, next);
    const hasLeft = this.#mode !== OPEN && !sequenceBefore(acknowledgment, this.#end!);
    if (hasLeft) this.#leave();
    let deliveredBytes = newBytes + namedBytes;
    if (this.usesSack) rack.judge(nowMs, scoreboard, this.isRecovering, this.rtt.smoothedMs);
    else deliveredBytes = this.#judgeByCount(isNew, isRepeat, acknowledgment, newBytes);
    if (this.#mode === OPEN && this.#end !== undefined && sequenceAfter(acknowledgment, this.#end))
      this.#end = undefined;
    if (this.#mode === OPEN && scoreboard.lostSegments > 0) this.#enter(acknowledgment, next, deliveredBytes);
    this.#probeAnswered(acknowledgment, next, isRepeat, hasDuplicate);
    if (this.#mode === RECOVERY) {
      const isSafe = isNew && scoreboard.lostSegments <= Math.min(lostBefore, lostAfter);
      congestion.recovers(deliveredBytes, this.#pipeBytes, isSafe);
    } else {
      // Only what arrives in order lets the window grow (RFC 5681 §3.1), and not what a recovery has counted already.
      let ackedBytes = 0;
      if (isNew && !hasLeft)
        ackedBytes = this.#mode === OPEN ? sequenceDifference(acknowledgment, una) : deliveredBytes;
      const { smoothedMs } = this.rtt;
      congestion.acknowledged(nowMs, ackedBytes, isLimit, acknowledgment, next, rack.rttSampleMs, smoothedMs);
    }
  }

  /** How long ago what this echoes was sent; −1 when it doesn't say. */
  #echoedMs(nowMs: number, segment: Segment): number {
    if (!this.#timestamps.isOn || !segment.options.hasTimestamps) return -1;
    const ms = this.#timestamps.elapsedMs(nowMs, segment.options.timestampEcho);
    return ms <= ECHO_MAX_MS ? ms : -1;
  }

  /**
   * Without SACK (RFC 6582 §3.2): by three that say the same, then by each that moves on, but not to the end. Returns
   * the bytes that it says have arrived (RFC 9937 §6.2): an estimate.
   */
  #judgeByCount(isNew: boolean, isRepeat: boolean, acknowledgment: number, newBytes: number): number {
    const { mssBytes, scoreboard } = this;
    if (isNew) {
      const deliveredBytes = Math.max(newBytes - this.#creditBytes, Math.min(newBytes, mssBytes));
      const isPartial = this.#mode === RECOVERY;
      this.#creditBytes = isPartial ? Math.max(0, this.#creditBytes - Math.max(newBytes - mssBytes, 0)) : 0;
      this.#duplicates = 0;
      if (isPartial) scoreboard.loseFirst();
      return deliveredBytes;
    }
    if (!isRepeat || this.#mode === TIMEOUT) return 0;
    this.#duplicates++;
    this.#creditBytes = Math.min(this.#creditBytes + mssBytes, scoreboard.pipeBytes);
    // §3.2 (2): echoes of an older loss
    const isEcho = this.#end !== undefined && !sequenceAfter(acknowledgment, this.#end);
    if (this.#mode === OPEN && this.#duplicates === DUPLICATE_ACKS_MAX && !isEcho) scoreboard.loseFirst();
    return mssBytes;
  }

  #enter(una: number, next: number, deliveredBytes: number): void {
    this.#mode = RECOVERY;
    this.#end = next;
    this.#firstResent = undefined;
    this.#mayUndo = true;
    this.#probe = undefined;
    const outstandingBytes = sequenceDifference(next, una) + deliveredBytes;
    this.congestion.recoveryBegins(outstandingBytes, this.scoreboard.sackedBytes);
  }

  #leave(): void {
    if (this.#mode === RECOVERY) this.congestion.recoveryEnds();
    else this.congestion.timeoutEnds();
    if (this.#mode !== RESTART) this.rack.recovered();
    this.#mode = OPEN;
  }

  /** RFC 3522 §3.2: what it acknowledges was sent before the first that was sent again. */
  #wasLate(segment: Segment): boolean {
    const first = this.#firstResent;
    if (this.#mode === OPEN || !this.#mayUndo || first === undefined) return false;
    if (!this.#timestamps.isOn || !segment.options.hasTimestamps) return false;
    return sequenceBefore(segment.options.timestampEcho, first);
  }

  #undo(): void {
    if (this.#mode === RECOVERY) this.rack.reordered();
    this.scoreboard.forgetLosses();
    this.congestion.undo();
    this.#creditBytes = 0;
    this.#mode = OPEN;
  }

  /** Time has passed: what was sent before others that have arrived is lost by now (RFC 8985 §6.2, the timer). */
  judge(nowMs: number, una: number, next: number): void {
    const { rack, scoreboard } = this;
    rack.judge(nowMs, scoreboard, this.isRecovering, this.rtt.smoothedMs);
    if (scoreboard.lostSegments === 0) return;
    if (this.#mode === OPEN) this.#enter(una, next, 0);
    if (this.#mode === RECOVERY) this.congestion.recovers(0, this.#pipeBytes, false);
  }

  /** A segment, or its first `bytes`, is sent again. */
  resent(nowMs: number, index: number, bytes: number): void {
    this.#firstResent ??= this.#timestamps.value(nowMs);
    this.scoreboard.resent(nowMs, index, bytes);
    if (this.#mode === RECOVERY) this.congestion.sent(bytes);
  }

  /** New data (or SYN or FIN) up to `end`. */
  sent(nowMs: number, end: number, bytes: number): void {
    this.scoreboard.add(nowMs, end);
    if (this.#mode === RECOVERY) this.congestion.sent(bytes);
  }

  /** The retransmission timer fired: RFC 6298 §5.4 to §5.6, RFC 8985 §6.3. */
  timedOut(nowMs: number, una: number, next: number): void {
    const { scoreboard, rack } = this;
    if (scoreboard.isReneged) scoreboard.forgetSacks();
    rack.judgeAll(nowMs, scoreboard);
    scoreboard.loseFirst();
    this.#duplicates = 0;
    this.#creditBytes = 0;
    this.#probe = undefined;
    if (this.#mode !== TIMEOUT) this.#firstResent = undefined;
    this.#mayUndo = true;
    this.#mode = TIMEOUT;
    this.#end = next;
    this.congestion.timedOut(sequenceDifference(next, una), scoreboard.pipeBytes, this.rtt.backoffs === 0);
    this.rtt.backOff();
  }

  /** Everything up to `next` goes again, at once and for no fault of the path's congestion. */
  restart(next: number): void {
    if (this.scoreboard.segments === 0) return;
    this.scoreboard.loseAll();
    this.scoreboard.recut(this.mssBytes);
    this.rack.judgeAtMs = Number.POSITIVE_INFINITY;
    this.#duplicates = 0;
    this.#creditBytes = 0;
    this.#mayUndo = false;
    this.#end = next;
    if (this.#mode === OPEN) this.#mode = RESTART;
  }

  // --- Tail loss probes (RFC 8985 §7) -----------------------------------------------------------------

  /** How long to wait for any acknowledgment before one is asked for; Infinity: no probe now. */
  get probeAfterMs(): number {
    const { scoreboard } = this;
    const isDue = this.usesSack && this.#mode === OPEN && this.#probe === undefined && scoreboard.segments > 0;
    if (!isDue || scoreboard.sackedSegments > 0) return Number.POSITIVE_INFINITY;
    if (this.rtt.smoothedMs < 0) return PROBE_WITHOUT_RTT_MS;
    return 2 * this.rtt.smoothedMs + (scoreboard.segments === 1 ? PROBE_ALONE_MS : PROBE_PATIENCE_MS);
  }

  /** The probe went out: new data up to `end`, or the last segment again. */
  probed(end: number, isResent: boolean): void {
    this.#probe = { end, isResent };
  }

  /** The other end had the last segment already: the probe was too early, but nothing was late. */
  #isOfProbe(segment: Segment): boolean {
    return this.#probe?.isResent === true && segment.options.sackEdges[1] === this.#probe.end;
  }

  /** §7.4.2: whether the probe has mended a loss, which then counts as one. */
  #probeAnswered(acknowledgment: number, next: number, isRepeat: boolean, hasDuplicate: boolean): void {
    const probe = this.#probe;
    if (probe === undefined || sequenceBefore(acknowledgment, probe.end)) return;
    const isPast = sequenceAfter(acknowledgment, probe.end);
    if (!probe.isResent || hasDuplicate || isRepeat || isPast) this.#probe = undefined;
    if (probe.isResent && !hasDuplicate && isPast && this.#mode === OPEN) {
      this.congestion.reduceOnce(sequenceDifference(next, acknowledgment) + this.mssBytes);
    }
  }
}

/** RFC 2883 §4: the first block is below what is acknowledged, or within the second. */
function isDuplicateNamed(segment: Segment): boolean {
  const { acknowledgment, options } = segment;
  const { sackEdges: edges, sackBlocks } = options;
  if (sackBlocks === 0) return false;
  if (!sequenceAfter(edges[1]!, acknowledgment)) return sequenceAfter(edges[1]!, edges[0]!);
  return sackBlocks > 1 && !sequenceBefore(edges[0]!, edges[2]!) && !sequenceAfter(edges[1]!, edges[3]!);
}
