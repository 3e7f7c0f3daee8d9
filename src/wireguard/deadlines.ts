// The timers of [WG §6], derived from what happened: nothing is armed, so nothing can be forgotten or left behind.
// Rekeying after REKEY_AFTER_TIME is no deadline: it happens on sending, or idle tunnels would be woken.

export const REKEY_AFTER_TIME_MS = 120_000;
export const REJECT_AFTER_TIME_MS = 180_000;
export const REKEY_ATTEMPT_TIME_MS = 90_000;
export const REKEY_TIMEOUT_MS = 5_000;
export const KEEPALIVE_TIMEOUT_MS = 10_000;
/** Added to retries, drawn anew for each, so that two ends that start together don't collide for ever [WG §6.1]. */
export const REKEY_JITTER_MAX_MS = 333;
/** All keys of a tunnel that made no new ones for this long are overwritten [WG §6.3]. */
export const ZERO_KEYS_AFTER_MS = 3 * REJECT_AFTER_TIME_MS;

const NEVER = Number.POSITIVE_INFINITY;

/** What has happened on one tunnel. Infinity: it has not; so a sum with it is no deadline. */
export class TunnelTimes {
  /** A handshake is wanted since then. */
  attemptStartedMs = NEVER;
  /** Of our last initiation or response; −Infinity before the first. */
  lastHandshakeSentMs = -NEVER;
  /** Drawn with each initiation. */
  retryJitterMs = 0;
  /** First data sent after which nothing authenticated came back. */
  firstSentUnansweredMs = NEVER;
  /** Drawn when `firstSentUnansweredMs` is set. */
  answerJitterMs = 0;
  /**
   * First data received after which we sent nothing. The first: under one-way traffic a "last" would slide for ever.
   */
  firstReceivedUnansweredMs = NEVER;
  /** Last authenticated message in either direction, or when persistent keepalives were asked for. */
  lastTraversalMs = NEVER;
  /** Infinity: none are wanted. */
  persistentKeepaliveMs = NEVER;
  /** Last time keys were made or a handshake given up; Infinity when there is nothing to overwrite. */
  keysMadeMs = NEVER;
}

export type DeadlineReason =
  | "give-up"
  | "retry-handshake"
  | "no-answer"
  | "keepalive"
  | "persistent-keepalive"
  | "zero-keys";

/** [WG §6.4] REKEY_ATTEMPT_TIME of trying is enough. */
export function giveUpAtMs(times: TunnelTimes): number {
  return times.attemptStartedMs + REKEY_ATTEMPT_TIME_MS;
}

/** [WG §6.1] Never more than one initiation in REKEY_TIMEOUT. An attempt begun too early waits for it. */
export function retryHandshakeAtMs(times: TunnelTimes): number {
  if (times.attemptStartedMs === NEVER) return NEVER;
  return Math.max(times.attemptStartedMs, times.lastHandshakeSentMs + REKEY_TIMEOUT_MS + times.retryJitterMs);
}

/**
 * [WG §6.4] Sent data and heard nothing for as long as a passive keepalive may take: the session is dead at the other
 * end.
 */
export function noAnswerAtMs(times: TunnelTimes): number {
  return times.firstSentUnansweredMs + KEEPALIVE_TIMEOUT_MS + REKEY_TIMEOUT_MS + times.answerJitterMs;
}

/**
 * [WG §6.5] Received data and had nothing to say for KEEPALIVE_TIMEOUT: an empty message tells the other end that we
 * live.
 */
export function keepaliveAtMs(times: TunnelTimes): number {
  return times.firstReceivedUnansweredMs + KEEPALIVE_TIMEOUT_MS;
}

export function persistentKeepaliveAtMs(times: TunnelTimes): number {
  return times.lastTraversalMs + times.persistentKeepaliveMs;
}

export function zeroKeysAtMs(times: TunnelTimes): number {
  return times.keysMadeMs + ZERO_KEYS_AFTER_MS;
}

/** The earliest of all; Infinity when nothing is due ever. */
export function nextDeadlineMs(times: TunnelTimes): number {
  return Math.min(
    giveUpAtMs(times),
    retryHandshakeAtMs(times),
    noAnswerAtMs(times),
    keepaliveAtMs(times),
    persistentKeepaliveAtMs(times),
    zeroKeysAtMs(times),
  );
}

/** What is due now, gravest first; so that a loop that spins can explain itself. */
export function dueReason(times: TunnelTimes, nowMs: number): DeadlineReason | undefined {
  if (giveUpAtMs(times) <= nowMs) return "give-up";
  if (zeroKeysAtMs(times) <= nowMs) return "zero-keys";
  if (noAnswerAtMs(times) <= nowMs) return "no-answer";
  if (retryHandshakeAtMs(times) <= nowMs) return "retry-handshake";
  if (keepaliveAtMs(times) <= nowMs) return "keepalive";
  if (persistentKeepaliveAtMs(times) <= nowMs) return "persistent-keepalive";
  return undefined;
}
