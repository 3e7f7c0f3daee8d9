// Bugs of clocks that were set or stood still: the process's one clock, leases by it, handshake stamps over restarts,
// and the network's own time over a restart of its coordinator.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "../../src/base/units.ts";
import { formatJoinToken } from "../../src/control/token.ts";
import { auditSchema } from "../../src/coordinator/http/schema.ts";
import { type Clock, DeadlineTimer, SystemClock } from "../../src/io/clock.ts";
import { SessionStore } from "../../src/peer/session-store.ts";
import { TestNetwork } from "../coordinator/network.ts";
import { give, texts, udpPacket, World } from "../engine/engine-world.ts";
import { World as WireguardWorld } from "../wireguard/world.ts";

const START_MS = 1_700_000_000_000;

/** A machine whose time passes when a test says so, whose wall clock can be set. */
class Machine {
  wall = START_MS;
  monotonic = 5_000.25;
  readonly clock = new SystemClock(
    () => Math.floor(this.wall),
    () => this.monotonic,
  );

  pass(ms: number): number {
    this.wall += ms;
    this.monotonic += ms;
    return this.clock.nowMs();
  }
}

// https://github.com/oxidezap/whatsapp-rust/issues/1376: deadlines measured with a clock that was set. The clock by
// itself is tested in test/io/clock.test.ts; here, what waits for it.
test("a timer armed over a day's step forward and back fires at its time (whatsapp-rust#1376)", async () => {
  const machine = new Machine();
  const clock: Clock = { nowMs: () => machine.clock.nowMs() };
  machine.wall += DAY_MS;
  clock.nowMs();
  machine.wall -= DAY_MS;
  const deadlineMs = clock.nowMs() + 30;
  let readMs = performance.now();
  let fired = 0;
  await new Promise<void>((resolve) => {
    const timer = new DeadlineTimer(clock, () => {
      fired++;
      const nowMs = performance.now();
      machine.pass(nowMs - readMs);
      readMs = nowMs;
      if (clock.nowMs() >= deadlineMs || fired > 10) resolve();
      else timer.armAt(deadlineMs);
    });
    timer.armAt(deadlineMs);
  });
  expect(clock.nowMs()).toBeGreaterThanOrEqual(deadlineMs);
  expect(fired).toBeLessThanOrEqual(3); // an early wake-up arms it again
});

// The same for what a lease means: https://github.com/slackhq/nebula/pull/370 had tunnels outlive the certificate that
// they were made with; a clock set back must not do that either.
test("a lease ends after its own length, whatever the wall clock is set to meanwhile (nebula#370)", () => {
  const machine = new Machine();
  const world = new World();
  const [a, b] = [world.add("a"), world.add("b")];
  world.nowMs = machine.clock.nowMs();
  world.lease(a, 10 * MINUTE_MS);
  world.lease(b, HOUR_MS);
  const rule = { id: "g", action: "allow" as const, from: a, to: b, protocol: "udp" as const };
  world.apply([{ ...rule, ports: [[53, 53]] }]);
  const say = (text: string): void => {
    give(world, a, udpPacket(a.address, b.address, 4_000, 53, text));
    world.run(100);
  };
  const pass = (ms: number): void => world.run(machine.pass(ms) - world.nowMs);
  say("first");
  pass(4 * MINUTE_MS);
  machine.wall -= DAY_MS;
  pass(4 * MINUTE_MS);
  say("within the lease");
  pass(4 * MINUTE_MS);
  a.engine.filter.allowAll(); // a hostile end that goes on
  say("after it");
  expect(texts(b)).toEqual(["first", "within the lease"]);
  expect(b.engine.counters()["inbound-denied-LEASE_ENDED"]).toBeGreaterThan(0);
});

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "wb-others-"));
  folders.push(path);
  return path;
}

const TOKEN = formatJoinToken({
  url: "http://127.0.0.1:7470",
  coordinatorKey: new Uint8Array(32).fill(3),
  id: "t_0123456789abcdef",
  secret: new Uint8Array(32).fill(4),
});

// https://github.com/opnsense/core/issues/9181 and https://github.com/trombik/esp_wireguard/pull/37: after a restart
// with a clock that had lost the time, the other end refused every handshake as a replay until the clock was right.
test("who restarts with a clock set back is let in at its first handshake (opnsense#9181, esp_wireguard#37)", () => {
  const world = new WireguardWorld();
  const server = world.add("192.0.2.1:1001");
  const keyPair = world.newKeyPair();
  const state = folder();
  let port = 2_000;
  let known = false;

  /** One life of the peer: initiations of which only the first is written down, as a live tunnel's renewals aren't. */
  const live = (wallMs: number, initiations: number): string[] => {
    const store = SessionStore.open(TOKEN, state);
    const { lastTimestamp } = store;
    const peer = world.add(`192.0.2.2:${++port}`, {
      keyPair,
      ...(lastTimestamp === undefined ? {} : { lastTimestamp }),
    });
    if (!known) world.introduce(server, peer);
    known = true;
    const tunnel = world.introduce(peer, server);
    const seen = server.kinds.length;
    world.nowMs = Math.max(world.nowMs, wallMs); // the world's; the peer's own is what stamps are made of
    for (let count = 0; count < initiations; count++) {
      const atMs = wallMs + count * 6_000;
      peer.device.startHandshake(atMs, tunnel);
      if (count === 0) store.reserveTimestamp(atMs, peer.device.lastTimestamp);
      const { bytes } = peer.sent.at(-1)!;
      server.device.receive(world.nowMs, peer.endpoint, bytes.slice(), 0, bytes.length);
      server.kinds.push(server.device.counters.TIMESTAMP_OLD > 0 ? "TIMESTAMP_OLD" : "HANDSHAKE");
      world.nowMs += 6_000;
      peer.device.expireSessions(tunnel);
    }
    store.release(); // killed: nothing more is written
    return server.kinds.slice(seen);
  };

  world.link = () => undefined;
  expect(live(START_MS + DAY_MS, 3)).toEqual(["HANDSHAKE", "HANDSHAKE", "HANDSHAKE"]);
  expect(live(START_MS, 3)).toEqual(["HANDSHAKE", "HANDSHAKE", "HANDSHAKE"]);
  expect(live(START_MS - DAY_MS, 3)).toEqual(["HANDSHAKE", "HANDSHAKE", "HANDSHAKE"]);
  expect(live(START_MS + 3 * DAY_MS, 1)).toEqual(["HANDSHAKE"]);
});

// No tracker had this one: a coordinator that starts again with its machine's clock a day behind would take back what
// its time had ended (the class of opnsense#9181, at the other end).
test("a coordinator that starts again with its clock a day behind goes on from its latest time", async () => {
  const behind = { ms: 0 };
  const machine = new SystemClock();
  const clock: Clock = { nowMs: () => machine.nowMs() - behind.ms };
  const network = await TestNetwork.start({ clock });
  try {
    const expired = await network.token({ as: "agent:late", expiresInMs: 60_000 });
    behind.ms = -2 * MINUTE_MS; // two minutes on
    await network.token({ as: "agent:other" }); // something is written at that time
    const times = async (): Promise<number[]> =>
      (await network.admin(auditSchema, "GET", "/v1/audit?limit=1000")).entries.map(({ atMs }) => atMs);
    const latestMs = Math.max(...(await times()));
    await network.running.stop();
    behind.ms = DAY_MS;
    await network.startAgain();
    const late = network.peer(expired);
    late.client.start();
    await expect(late.client.ready).rejects.toMatchObject({ code: "TOKEN_EXPIRED" });
    await network.token({ as: "agent:third" });
    expect(Math.max(...(await times()))).toBeGreaterThanOrEqual(latestMs);
    expect((await times()).length).toBeGreaterThan(2);
    const ordered = (await times()).toSorted((x, y) => x - y);
    expect([ordered, ordered.toReversed()]).toContainEqual(await times());
    expect(network.log.lines.some((line) => line.includes("clock is behind"))).toBe(true);
  } finally {
    await network.end();
  }
});
