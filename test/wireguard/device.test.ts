import { describe, expect, test } from "vitest";
import { World } from "./world.ts";

describe("two devices", () => {
  test("a packet without a session is staged, shakes hands and arrives, padded to 16 bytes", () => {
    const world = new World();
    const [a, b, toB] = world.pair();
    expect(a.send(toB, 100)).toBe("STAGED");
    world.run(1_000);
    expect(b.delivered).toHaveLength(1);
    expect(b.delivered[0]!.length).toBe(112);
    expect([...b.delivered[0]!.subarray(0, 100)].every((byte) => byte === 7)).toBe(true);
    expect([...b.delivered[0]!.subarray(100)].every((byte) => byte === 0)).toBe(true);
    expect(a.events).toEqual(["started initiator"]);
    expect(b.events).toEqual(["started responder"]);
    expect(a.sent.map((passed) => passed.kind)).toEqual(["initiation", "data"]);
  });
});
