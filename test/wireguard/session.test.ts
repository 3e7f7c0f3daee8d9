// Limits of one pair of keys, at the limit and one beyond.
import { describe, expect, test } from "vitest";
import type { Crypto, TransportAead } from "../../src/crypto/provider.ts";
import { encodeDataHeader } from "../../src/wire/wireguard.ts";
import {
  REJECT_AFTER_MESSAGES_HIGH,
  REJECT_AFTER_MESSAGES_LOW,
  REKEY_AFTER_MESSAGES_HIGH,
  Session,
  type SessionRole,
} from "../../src/wireguard/session.ts";
import { PROVIDERS } from "../crypto/providers.ts";

const NOW = 1_700_000_000_000;

describe.each(PROVIDERS)("with the %s provider", (_name, crypto) => {
  const key = (fill: number): Uint8Array => new Uint8Array(32).fill(fill);
  const pair = (): [Session, Session] => [
    new Session(crypto, { sendKey: key(1), receiveKey: key(2) }, "initiator", 11, 22, NOW),
    new Session(crypto, { sendKey: key(2), receiveKey: key(1) }, "responder", 22, 11, NOW),
  ];
  const sealed = (session: Session, length = 32): Uint8Array => {
    const buffer = new Uint8Array(16 + length + 16);
    buffer.fill(3, 16, 16 + length);
    session.seal(buffer, 16, length);
    return buffer;
  };

  test("a message opens once; replayed it is REPLAYED, bent it is DATA_FORGED and leaves the window as it was", () => {
    const [a, b] = pair();
    const first = sealed(a);
    const bent = first.slice();
    bent[20]! ^= 1;
    expect(b.open(NOW, bent, 0, bent.length)).toBe("DATA_FORGED");
    expect(b.open(NOW, first.slice(), 0, first.length)).toBe("OPENED");
    expect(b.open(NOW, first.slice(), 0, first.length)).toBe("REPLAYED");
    const later = Array.from({ length: 5 }, () => sealed(a));
    for (const i of [4, 0, 3, 1, 2]) expect(b.open(NOW, later[i]!.slice(), 0, 64)).toBe("OPENED");
    for (const i of [0, 4]) expect(b.open(NOW, later[i]!.slice(), 0, 64)).toBe("REPLAYED");
  });

  test("a counter moved in the header is forged, not accepted", () => {
    const [a, b] = pair();
    const message = sealed(a);
    message[8] = 5;
    expect(b.open(NOW, message, 0, message.length)).toBe("DATA_FORGED");
  });

  test("the last counter below REJECT_AFTER_MESSAGES is sealed and opened, the next is neither", () => {
    const [a, b] = pair();
    a.setCounter(REJECT_AFTER_MESSAGES_LOW - 1, REJECT_AFTER_MESSAGES_HIGH);
    expect(a.canSend(NOW)).toBe(true);
    const last = sealed(a);
    expect(b.open(NOW, last, 0, last.length)).toBe("OPENED");
    expect(a.canSend(NOW)).toBe(false);
    expect(() => sealed(a)).toThrow("no counter is used twice");
    for (const low of [REJECT_AFTER_MESSAGES_LOW, 0xffffffff]) {
      const forged = new Uint8Array(64);
      encodeDataHeader(forged, 0, 22, low, 0xffffffff);
      expect(b.open(NOW, forged, 0, 64)).toBe("COUNTER_LIMIT");
    }
  });

  test("a session that has sent 2^32 messages has sent something", () => {
    const [a] = pair();
    const hasSentNothingAt = (low: number, high: number): boolean => {
      a.setCounter(low, high);
      return a.hasSentNothing;
    };
    expect(hasSentNothingAt(0, 0)).toBe(true);
    expect(hasSentNothingAt(1, 0)).toBe(false);
    expect(hasSentNothingAt(0, 1)).toBe(false);
  });

  test("keys are destroyed once, however often it is asked for", () => {
    let destroyed = 0;
    const counting: Crypto = Object.create(crypto, {
      transportAead: { value: (bytes: Uint8Array) => counted(crypto.transportAead(bytes)) },
    });
    const counted = (aead: TransportAead): TransportAead =>
      Object.create(aead, { destroy: { value: () => destroyed++ } });
    const session = new Session(counting, { sendKey: key(1), receiveKey: key(2) }, "initiator", 11, 22, NOW);
    session.destroy();
    session.destroy();
    expect(destroyed).toBe(2); // one for each direction
  });

  test("the counter passes 2^32", () => {
    const [a, b] = pair();
    a.setCounter(0xffffffff, 0);
    const messages = [sealed(a), sealed(a)];
    expect([...messages[1]!.subarray(8, 16)]).toEqual([0, 0, 0, 0, 1, 0, 0, 0]);
    for (const message of messages) expect(b.open(NOW, message, 0, message.length)).toBe("OPENED");
  });

  test("both ends stop at REJECT_AFTER_TIME", () => {
    const [a, b] = pair();
    const message = sealed(a);
    expect(a.canSend(NOW + 179_999)).toBe(true);
    expect(a.canSend(NOW + 180_000)).toBe(false);
    expect(b.open(NOW + 180_000, message.slice(), 0, message.length)).toBe("SESSION_EXPIRED");
    expect(b.open(NOW + 179_999, message, 0, message.length)).toBe("OPENED");
  });

  test.each<[SessionRole, number, boolean]>([
    ["initiator", 119_999, false],
    ["initiator", 120_000, true],
    ["responder", 170_000, false],
  ])("%s after %i ms: wants a new handshake: %s", (role, ageMs, wants) => {
    const session = new Session(crypto, { sendKey: key(1), receiveKey: key(2) }, role, 1, 2, NOW);
    expect(session.wantsRekey(NOW + ageMs)).toBe(wants);
  });

  test("REKEY_AFTER_MESSAGES asks for a new handshake in both roles", () => {
    for (const session of pair()) {
      session.setCounter(0xffffffff, REKEY_AFTER_MESSAGES_HIGH - 1);
      expect(session.wantsRekey(NOW)).toBe(false);
      sealed(session);
      expect(session.wantsRekey(NOW)).toBe(true);
    }
  });

  test("keys are taken over: the arrays are zero, and a destroyed session neither sends nor receives", () => {
    const keys = { sendKey: key(1), receiveKey: key(2) };
    const session = new Session(crypto, keys, "initiator", 1, 2, NOW);
    expect(keys).toEqual({ sendKey: key(0), receiveKey: key(0) });
    session.destroy();
    expect(session.canSend(NOW)).toBe(false);
    expect(session.open(NOW, new Uint8Array(64), 0, 64)).toBe("SESSION_EXPIRED");
  });
});
