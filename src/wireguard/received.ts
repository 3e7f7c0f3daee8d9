// What became of a received WireGuard message: one of four good ends, or a named drop. Each name is a counter too.
import type { Session } from "./session.ts";
import type { Tunnel } from "./tunnel.ts";

export type DropReason =
  | "WRONG_LENGTH"
  | "UNKNOWN_TYPE"
  | "MAC1_WRONG" // not made for our public key
  | "HANDSHAKE_WAITING" // no drop yet: counted again, by its end, once it is worked on
  | "HANDSHAKE_PUSHED_OUT" // it waited, and newer ones took its place; offered a cookie
  | "HANDSHAKE_STALE" // it waited until its sender has asked anew
  | "COOKIE_REQUIRED" // under load: answered with a cookie reply
  | "RATE_LIMITED" // under load: this source asked too often
  | "LOW_ORDER_POINT" // an ephemeral key that makes every secret zero
  | "INITIATION_FORGED" // its static key or timestamp doesn't open
  | "UNKNOWN_PEER" // a well-made initiation by a key we weren't told of
  | "TIMESTAMP_OLD" // a replayed initiation
  | "INITIATION_TOO_SOON" // more than one in 20 ms by one peer
  | "UNKNOWN_INDEX" // a receiver index that nobody has
  | "RESPONSE_FORGED"
  | "COOKIE_FORGED"
  | "SESSION_EXPIRED"
  | "COUNTER_LIMIT" // at or above REJECT_AFTER_MESSAGES
  | "REPLAYED"
  | "DATA_FORGED";

/** COOKIE: taken, but it proves nothing of its sender. */
export type ReceivedKind = "DATA" | "KEEPALIVE" | "HANDSHAKE" | "COOKIE" | DropReason;

/** One object per device, overwritten by its next `receive`. */
export class Received<Owner> {
  kind: ReceivedKind = "UNKNOWN_TYPE";
  /** Who sent it; undefined for a cookie and a drop. */
  tunnel: Tunnel<Owner> | undefined;
  /** Of DATA and KEEPALIVE. */
  session: Session | undefined;
  /** Of DATA: where the inner packet begins in the buffer that was given. */
  offset = 0;
  /** Of DATA: with the padding, up to 15 zero bytes behind the inner packet. */
  length = 0;

  clear(): void {
    this.tunnel = undefined;
    this.session = undefined;
    this.offset = 0;
    this.length = 0;
  }
}

export type CounterName =
  | DropReason
  | "DATA_RECEIVED"
  | "DATA_SENT"
  | "KEEPALIVES_RECEIVED"
  | "KEEPALIVES_SENT"
  | "INITIATIONS_RECEIVED"
  | "INITIATIONS_SENT"
  | "INITIATIONS_DEFERRED" // other handshakes had the turn: sent a moment later
  | "RESPONSES_RECEIVED"
  | "RESPONSES_SENT"
  | "COOKIES_RECEIVED"
  | "COOKIES_SENT"
  | "COOKIES_WITHHELD" // more than COOKIES_PER_SECOND_MAX, or to a source that has had its part
  | "HANDSHAKES_COMPLETED"
  | "HANDSHAKES_GIVEN_UP"
  | "STAGED"
  | "STAGED_DROPPED" // the oldest, for want of room, or all when the attempt was given up
  | "PACKET_TOO_LARGE"; // above the MTU, by our own side

export type DeviceCounters = Record<CounterName, number>;

export function newDeviceCounters(): DeviceCounters {
  return {
    WRONG_LENGTH: 0,
    UNKNOWN_TYPE: 0,
    MAC1_WRONG: 0,
    HANDSHAKE_WAITING: 0,
    HANDSHAKE_PUSHED_OUT: 0,
    HANDSHAKE_STALE: 0,
    COOKIE_REQUIRED: 0,
    RATE_LIMITED: 0,
    LOW_ORDER_POINT: 0,
    INITIATION_FORGED: 0,
    UNKNOWN_PEER: 0,
    TIMESTAMP_OLD: 0,
    INITIATION_TOO_SOON: 0,
    UNKNOWN_INDEX: 0,
    RESPONSE_FORGED: 0,
    COOKIE_FORGED: 0,
    SESSION_EXPIRED: 0,
    COUNTER_LIMIT: 0,
    REPLAYED: 0,
    DATA_FORGED: 0,
    DATA_RECEIVED: 0,
    DATA_SENT: 0,
    KEEPALIVES_RECEIVED: 0,
    KEEPALIVES_SENT: 0,
    INITIATIONS_RECEIVED: 0,
    INITIATIONS_SENT: 0,
    INITIATIONS_DEFERRED: 0,
    RESPONSES_RECEIVED: 0,
    RESPONSES_SENT: 0,
    COOKIES_RECEIVED: 0,
    COOKIES_SENT: 0,
    COOKIES_WITHHELD: 0,
    HANDSHAKES_COMPLETED: 0,
    HANDSHAKES_GIVEN_UP: 0,
    STAGED: 0,
    STAGED_DROPPED: 0,
    PACKET_TOO_LARGE: 0,
  };
}
