// What a peer keeps between its runs: state.json in its state folder. Keys, the session they stand for, and what must
// not go backwards. The enrolment secret is never in it.
import { z } from "zod";
import { BOOKMARK_MAX_CHARACTERS, REVOCATIONS_KEPT_MAX } from "../base/limits.ts";
import { SESSION_ID } from "../control/netmap.ts";

export const STATE_VERSION = 1;

const keySchema = z
  .string()
  .length(44)
  .regex(/^[A-Za-z0-9+/]{43}=$/); // 32 bytes in base64

export const peerStateSchema = z.strictObject({
  version: z.literal(STATE_VERSION),
  coordinator: z.strictObject({
    url: z.string().max(2048),
    /** Its Noise static key, from the token. */
    key: keySchema,
    /** Its signing key, learned inside the channel. */
    signKey: keySchema.optional(),
  }),
  /** Of the token that this state was made for: the same token finds the same state. */
  tokenId: z.string().max(64).optional(),
  /** X25519 private key. */
  wireguardKey: keySchema,
  /** Ed25519 seed. */
  signSeed: keySchema,
  session: z.string().regex(SESSION_ID).optional(),
  identity: z.string().max(320).optional(), // "agent:coder"
  /** The last TAI64N stamp sent, 12 bytes in hexadecimal: the next must be greater, whatever the clock says. */
  lastTimestamp: z
    .string()
    .regex(/^[0-9a-f]{24}$/)
    .optional(),
  /** For the coordinator, should it come back from an old backup: see kept-for-coordinator.ts. */
  kept: z
    .strictObject({
      bookmark: z.string().max(BOOKMARK_MAX_CHARACTERS).optional(),
      revocations: z
        .array(
          z.strictObject({
            session: z.string().regex(SESSION_ID),
            signature: z.string().length(88),
            forgetMs: z.number(),
          }),
        )
        .max(REVOCATIONS_KEPT_MAX),
    })
    .optional(),
  listenPort: z.number().int().min(0).max(65_535).optional(),
});

export type PeerState = z.infer<typeof peerStateSchema>;
