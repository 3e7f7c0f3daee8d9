// An engine beside the one that has the tunnels: it judges as that one does by being told the same, and sends nothing.
import { expect, test } from "vitest";
import { HOUR_MS, MINUTE_MS } from "../../src/base/units.ts";
import { Engine } from "../../src/engine/engine.ts";
import { quietSink } from "../../src/engine/quiet-sink.ts";
import { crypto, EPOCH, World } from "./engine-world.ts";

function scene() {
  const world = new World();
  const [self, other] = [world.add("self"), world.add("other")];
  const rule = { id: "g", action: "allow" as const, from: other, to: self, protocol: "tcp" as const, ports: [] };
  let sent = 0;
  const beside = new Engine({
    crypto,
    random: { fill: (bytes) => bytes.fill(4) },
    keyPair: { privateKey: self.privateKey, publicKey: self.publicKey },
    mode: "badge",
    mtuBytes: 1_420,
    stopwatch: () => 0,
    leases: { verify: () => undefined },
    sink: { ...quietSink, sendDatagram: () => sent++, deliverPacket: () => undefined },
  });
  world.lease(self, 24 * HOUR_MS);
  // What the world tells the engine with the tunnels goes to the other one too.
  const apply = self.engine.apply.bind(self.engine);
  self.engine.apply = (nowMs, state) => {
    beside.apply(nowMs, state);
    return apply(nowMs, state);
  };
  world.apply([rule]);
  beside.setOwnLease(world.nowMs, world.newLease(self, 24 * HOUR_MS));
  const judged = (): string => {
    const slot = beside.slotOf(other.session)!;
    return beside.filter.judgeAddress(world.nowMs, "inbound", slot, self.address, "tcp", 80).reason;
  };
  const lease = (serial: number, epoch = EPOCH, lifetimeMs = MINUTE_MS) => ({
    session: other.session,
    epoch,
    serial,
    endMs: world.nowMs + lifetimeMs,
  });
  return { world, beside, other, judged, lease, sent: () => sent };
}

test("what a peer has shown to the engine with the tunnels counts here too, until it ends", () => {
  const { world, beside, other, judged, lease, sent } = scene();
  const without = judged();
  beside.learnLease(other.session, lease(2));
  expect(judged()).toBe("ALLOWED_BY_RULE");
  expect(without).not.toBe("ALLOWED_BY_RULE");
  world.nowMs += MINUTE_MS;
  expect(judged()).toBe("LEASE_ENDED");
  beside.learnLease(other.session, lease(3));
  expect(judged()).toBe("ALLOWED_BY_RULE");
  expect(sent()).toBe(0);
});

test("an older lease, one of another epoch and a stranger's change nothing", () => {
  const { world, beside, other, judged, lease } = scene();
  beside.learnLease(other.session, lease(5));
  world.nowMs += MINUTE_MS;
  beside.learnLease(other.session, lease(4));
  beside.learnLease(other.session, lease(9, EPOCH + 1));
  beside.learnLease("s_nobody0000000000", lease(9));
  beside.learnLease(other.session, { ...lease(9), session: "s_nobody0000000000" });
  expect(judged()).toBe("LEASE_ENDED");
});
