// kill -9 of peers, many times: while they write their state, while they join, while they renew leases and hold flows.
// Each comes back as the same session; and when the coordinator is killed, they find it again by themselves.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SeededRandom } from "../../src/base/random.ts";
import { readState } from "../../src/peer/state.ts";
import { LONG, record, scale } from "../proof/form.ts";
import { type Bundle, bundle } from "./bundle.ts";
import { exchange, type Recorder, TestNetwork, type TestPeer } from "./network.ts";
import { until } from "./program.ts";

const SEED = LONG ? Date.now() % 1_000_000 : 4;
const TIMEOUT_MS = 2_400_000;
const bundles: Bundle[] = [];

function bundled(entry: string): string {
  const made = bundle(entry);
  bundles.push(made);
  return made.path;
}
afterAll(() => {
  for (const made of bundles) made.remove();
});

test("kills in the middle of writing the state: it is whole, and the last one said to be written or a later one", {
  timeout: TIMEOUT_MS,
}, async () => {
  const kills = scale(50, 300);
  const writer = bundled("test/scripts/state-writer.ts");
  const random = new SeededRandom(SEED);
  const root = mkdtempSync(join(tmpdir(), "wb-kills-"));
  const path = join(root, "state");
  let said = 0;
  for (let kill = 0; kill < kills; kill++) {
    const child = spawn(process.execPath, [writer, path], { stdio: ["ignore", "pipe", "inherit"] });
    let text = "";
    child.stdout.setEncoding("latin1").on("data", (chunk: string) => {
      text += chunk;
    });
    const started = kill % 8 === 0 ? delay(random.below(200)) : once(child.stdout, "data");
    await Promise.race([started, once(child, "exit")]);
    await delay(random.below(30));
    child.kill("SIGKILL");
    await once(child, "close");
    expect(child.signalCode, "it ended by itself").toBe("SIGKILL");
    said = Number(text.slice(0, text.lastIndexOf("\n")).split("\n").at(-1) || said);
    const count = Number(readState(path)?.identity?.slice(6) ?? 0);
    expect(count, `seed ${SEED} kill ${kill}`).toBeGreaterThanOrEqual(said);
    expect(count, `seed ${SEED} kill ${kill}`).toBeLessThanOrEqual(said + 1);
    said = count;
  }
  expect(said).toBeGreaterThan(kills);
  rmSync(root, { recursive: true });
  record({ what: "kill -9 of a peer that writes its state", count: kills, figure: `${said} writes, seed ${SEED}` });
});

describe("peers of a network", () => {
  let network: TestNetwork;
  let service: Recorder;
  let program: string;
  beforeAll(async () => {
    program = bundled("src/cli/main.ts");
    network = await TestNetwork.start();
    service = await network.service("echo");
    await setLeases("10s");
    await network.join("node:gw", ["--serve", `echo=${service.at}`], { program });
  });
  afterAll(() => network?.close());

  /** Of agents. */
  async function setLeases(agent: string): Promise<void> {
    await network.setPolicy({
      services: { echo: { at: `127.0.0.1 tcp:${service.port}`, via: ["node:gw"] } },
      grants: [{ from: "kind:agent", to: "service:echo" }],
      leases: { agent },
    });
  }

  /** Bytes there and back until the connection ends. */
  async function talk(peer: TestPeer): Promise<void> {
    const socket = await peer.connect("echo", service.port);
    socket.on("error", () => undefined); // it is killed meanwhile
    for (;;) await exchange(socket, "x".repeat(10_000));
  }

  async function sessionsOf(identity: string): Promise<string[]> {
    const { sessions } = await network.admin(["session", "list"]);
    const all = sessions as { id: string; identity: string }[];
    return all.filter((session) => session.identity === identity).map(({ id }) => id);
  }

  test("killed while they join, start, renew and hold flows, they come back as the same session", {
    timeout: TIMEOUT_MS,
  }, async () => {
    const kills = scale(46, 180);
    let left = kills;
    const lane = async (number: number): Promise<void> => {
      const random = new SeededRandom(SEED + number);
      while (left > 0) {
        const identity = `agent:a${left}-${number}`;
        const token = await network.token(identity);
        const peer = network.peer(identity, ["--socks"], { program });
        // Three while it joins, with the token at hand as a supervisor would start it.
        for (let kill = 0; kill < 3 && left > 0; kill++, left--) {
          const words = [program, "up", "--state", peer.state, "--token-file", "-", "--socks", "--json"];
          const early = network.start(identity, process.execPath, words, { stdin: token });
          await delay(random.below(900));
          await early.kill();
        }
        await peer.up(token);
        const { session, addresses } = peer;
        for (let kill = 0; kill < 8 && left > 0; kill++, left--) {
          const talking = talk(peer).catch(() => undefined);
          // Leases last 10 s and are renewed at half of it: some kills hit a renewal.
          await delay(random.chance(0.1) ? 4_700 + random.below(700) : random.below(250));
          await peer.program.kill();
          await talking;
          await peer.up();
          expect([peer.session, peer.addresses], `seed ${SEED} ${identity} kill ${kill}`).toEqual([session, addresses]);
        }
        expect(await peer.echo("echo", service.port, "after all")).toBe("after all");
        expect(await sessionsOf(identity)).toEqual([session]);
        await peer.program.end();
      }
    };
    await Promise.all([lane(1), lane(2)]);
    record({ what: "kill -9 of peers that join, renew and hold flows", count: kills, figure: `seed ${SEED}` });
  });

  test("the coordinator is killed: flows go on, and peers find it again without help", {
    timeout: TIMEOUT_MS,
  }, async () => {
    const kills = scale(4, 20);
    await setLeases("5m");
    const coder = await network.join("agent:stays", ["--socks"], { program });
    const socket = await coder.connect("echo", service.port);
    const random = new SeededRandom(SEED);
    for (let kill = 0; kill < kills; kill++) {
      await delay(random.below(200));
      await network.coordinator.kill();
      expect(await exchange(socket, "while it is away")).toBe("while it is away");
      await network.startCoordinator();
      await until("both peers at the coordinator again", async () => {
        const { sessions } = await network.admin(["session", "list"]);
        const here = (sessions as { identity: string; connected: boolean }[]).filter(({ connected }) => connected);
        return ["agent:stays", "node:gw"].every((name) => here.some(({ identity }) => identity === name)) || undefined;
      });
      expect(await exchange(socket, "after it is back")).toBe("after it is back");
    }
    socket.destroy();
    record({ what: "kill -9 of the coordinator under peers with flows", count: kills, figure: `seed ${SEED}` });
  });
});
