// WebSocket close codes (RFC 6455 §7.4.2: 4000–4999 are an application's own). They come before or outside the
// encrypted channel, so a peer takes them as hints for its error message and never as a reason to give up.

export const CLOSE = {
  /** No proof of identity in time. */
  silent: 4000,
  /** Message 1 was sealed to another key, or damaged. */
  handshakeRefused: 4001,
  /** The reason text says which versions are served: "1-2". */
  protocolVersion: 4002,
  /** A record or frame that isn't one. */
  badRecord: 4003,
  /** Too many handshakes or records from there. */
  tooMany: 4004,
  /** The error record before it says why. */
  refused: 4005,
  /** The same session opened a newer channel. */
  replaced: 4006,
  /** The coordinator stops; come back. */
  stopping: 4007,
  /** Slower than what is sent to it. */
  tooSlow: 4008,
} as const;
export type CloseCode = (typeof CLOSE)[keyof typeof CLOSE];
