// `wirebadge wg --tun` while what it stands on fails: its data thread, its device's name and place, the outer link, a
// firewall, the sockets, koffi. Traffic goes on, or is back as soon as the fault is gone; nothing stays on the host.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { UAPI_FOLDER } from "../../src/peer/tun/uapi-server.ts";
import { fetchedHash } from "../interop/fetched.ts";
import { hashOfBlob } from "../interop/http-target.ts";
import { FailingDataThread, WITHOUT_KOFFI } from "../interop/planted.ts";
import { A, B, configOf, deviceOf, joined, publicKeyOf, serve, startEnd, TunEnd } from "../interop/tun-end.ts";
import { WIREBADGE } from "../interop/wg-scenario.ts";
import { Lab, type Namespace } from "../namespaces.ts";
import { needs, requireTool } from "../needs.ts";
import { Program, until } from "../scripts/program.ts";

const DEVICE = deviceOf(A);
const BLOB_BYTES = 20_000_000;
const toAll = (text: string): string => text.replace(/AllowedIPs = .*/, "AllowedIPs = 0.0.0.0/0, ::/0");

async function reaches(namespace: Namespace, host: string): Promise<boolean> {
  const ran = await namespace.run(requireTool("ping"), ["-c", "1", "-W", "1", host], { check: false });
  return ran.code === 0;
}

/** Received, sent: of the only peer. */
async function transfer(namespace: Namespace, device = DEVICE): Promise<[number, number]> {
  const { stdout } = await namespace.run(requireTool("wg"), ["show", device, "transfer"]);
  const [, received, sent] = stdout.trim().split("\t");
  return [Number(received), Number(sent)];
}

/** What it says at its end of what was lost, by name. */
async function countersAtEnd(end: TunEnd): Promise<Map<string, number>> {
  expect(await end.program.end()).toBe(0);
  const said = end.program.records.find((row) => row["event"] === "counters");
  return new Map(Object.entries(said?.["counters"] as Record<string, number>));
}

describe.runIf(needs("root", "tun", "netns", "ping", "wg", "curl", "nft"))("wg --tun while something fails", () => {
  test("a data thread that failed: counters go on, roamed peers are known, who speaks is answered soon", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    using planted = new FailingDataThread();
    const withoutEndpoint = configOf(A, B).replace(/Endpoint = .*\n/, "");
    await using ours = await TunEnd.start(A, a, withoutEndpoint, DEVICE, planted.script);
    await using _there = await startEnd("wirebadge", B, b, {});
    await until("an answer", () => reaches(b, A.inside[4]));
    await b.run(requireTool("ping"), ["-q", "-c", "20", "-i", "0.02", "-s", "1000", A.inside[4]]);
    const before = await transfer(a);
    expect(before[0]).toBeGreaterThan(20_000);

    planted.fail();
    // Only the other end speaks, under a session that is gone here; by itself it would try anew after 15 s.
    const startedMs = performance.now();
    await until("a new start", () => ours.program.output.includes("data-thread-restart"));
    await until("an answer", () => reaches(b, A.inside[4]));
    expect(performance.now() - startedMs).toBeLessThan(10_000);
    const after = await transfer(a);
    expect(after[0]).toBeGreaterThan(before[0]);
    expect(after[1]).toBeGreaterThan(before[1]);

    planted.fail();
    await until("a new start", () => ours.program.output.split("data-thread-restart").length > 2);
    await until("an answer to us", () => reaches(a, B.inside[4])); // nobody has told where it is
    const { stdout } = await a.run(requireTool("wg"), ["show", DEVICE, "endpoints"]);
    expect(stdout.trim()).toBe(`${publicKeyOf(B)}\t${B.outside[4]}:51820`);
  });

  test("its device renamed: packets flow as before, and at the end nothing is left", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    const before = [a.ip("rule"), a.ip("-6", "rule")];
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, toAll(configOf(A, B)));
    await serve(b);
    await until("an answer", () => reaches(a, B.inside[4]));
    const download = fetchedHash(a, B.inside[4], 8_000, BLOB_BYTES, { rate: "5M" });
    await delay(1_000);
    a.ip("link", "set", DEVICE, "name", "wbrenamed");
    expect(await download).toBe(hashOfBlob(BLOB_BYTES));
    expect(await reaches(b, A.inside[6])).toBe(true);
    expect((await transfer(a))[0]).toBeGreaterThan(BLOB_BYTES); // wg(8) knows it by the name that it began with
    expect(await ours.program.end()).toBe(0);
    expect(a.ip("link", "show")).not.toMatch(/wbrenamed|wbt/);
    expect([a.ip("rule"), a.ip("-6", "rule")]).toEqual(before);
    expect((await a.run(requireTool("nft"), ["list", "ruleset"])).stdout.trim()).toBe("");
    expect(existsSync(join(UAPI_FOLDER, `${DEVICE}.sock`))).toBe(false);
  });

  test("its device moved to another namespace: the sockets stay where they were, as WireGuard has it", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    const c = lab.namespace("c"); // no way out but the device
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    await serve(b);
    await until("an answer", () => reaches(a, B.inside[4]));
    a.ip("link", "set", DEVICE, "netns", c.name);
    for (const family of [4, 6] as const) c.addAddress(DEVICE, `${A.inside[family]}/${family === 4 ? 24 : 64}`);
    c.ip("link", "set", DEVICE, "up");
    expect(await fetchedHash(c, B.inside[4], 8_000, BLOB_BYTES, { rate: "100M" })).toBe(hashOfBlob(BLOB_BYTES));
    expect(await reaches(b, A.inside[6])).toBe(true);
    expect(await reaches(a, B.inside[4])).toBe(false);
    expect(await ours.program.end()).toBe(0);
    expect(c.ip("link", "show")).not.toContain(DEVICE);
  });

  test("the outer link becomes narrow and wide again under transfers both ways: byte for byte", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    await Promise.all([serve(a), serve(b)]);
    const both = Promise.all([
      fetchedHash(a, B.inside[4], 8_000, BLOB_BYTES, { rate: "4M" }),
      fetchedHash(b, A.inside[6], 8_000, BLOB_BYTES, { rate: "4M" }),
    ]);
    for (const mtu of ["1300", "1500", "1280", "1500"]) {
      await delay(1_000);
      for (const namespace of [a, b]) namespace.ip("link", "set", "eth0", "mtu", mtu);
    }
    expect(await both).toEqual([hashOfBlob(BLOB_BYTES), hashOfBlob(BLOB_BYTES)]);
    const counters = await countersAtEnd(ours);
    expect(counters.get("udp4-gso-EMSGSIZE")).toBeGreaterThan(0);
    expect(counters.get("udp4-send-EMSGSIZE")).toBeUndefined();
  });

  test("a firewall of this host refuses what it sends: counted by name, and back when it no longer does", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    await until("an answer", () => reaches(a, B.inside[4]));
    a.nft(`table inet shut {
      chain out {
        type filter hook output priority 0
        udp dport 51820 drop
      }
    }`);
    expect(await reaches(a, B.inside[4])).toBe(false);
    a.nft("delete table inet shut");
    await until("an answer", () => reaches(a, B.inside[4]));
    expect((await countersAtEnd(ours)).get("udp4-send-EPERM")).toBeGreaterThan(0);
  });

  test("no outer address, no route, no cable: counted by name, and back when there is one", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    await until("an answer", () => reaches(a, B.inside[4]));
    a.ip("addr", "del", `${A.outside[4]}/24`, "dev", "eth0");
    expect(await reaches(a, B.inside[4])).toBe(false);
    a.addAddress("eth0", `${A.outside[4]}/24`);
    await until("an answer", () => reaches(a, B.inside[4]));
    b.ip("link", "set", "eth0", "down");
    expect(await reaches(a, B.inside[4])).toBe(false);
    b.ip("link", "set", "eth0", "up");
    await until("an answer", () => reaches(a, B.inside[4]));
    expect((await countersAtEnd(ours)).get("udp4-send-ENETUNREACH")).toBeGreaterThan(0);
  });

  test("a link too slow for what the host sends: dropped by name, and all is back when it is faster", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    await serve(b);
    await until("an answer", () => reaches(a, B.inside[4]));
    // 2 Mbit/s with a queue longer than the socket's buffer, which is so always full: each send waits, and fails.
    const slow = ["rate", "2mbit", "burst", "70000", "limit", "100000000"];
    await a.run("tc", ["qdisc", "add", "dev", "eth0", "root", "tbf", ...slow]);
    const flood = a.run(process.execPath, ["-e", UDP_FLOOD, B.inside[4], "5000"]);
    await delay(4_000);
    // The main thread is answered, though each way out is shut for 20 ms at a time.
    const { stdout } = await a.run(requireTool("wg"), ["show", DEVICE, "transfer"]);
    expect(stdout).toContain(publicKeyOf(B));
    await flood;
    await a.run("tc", ["qdisc", "del", "dev", "eth0", "root"]);
    await until("an answer", () => reaches(a, B.inside[4]));
    expect(await fetchedHash(a, B.inside[4], 8_000, BLOB_BYTES, { rate: "100M" })).toBe(hashOfBlob(BLOB_BYTES));
    const counters = await countersAtEnd(ours);
    expect(counters.get("udp4-send-EAGAIN")).toBeGreaterThan(100);
    expect(counters.get("udp4-send-waits")).toBeGreaterThan(10);
  });

  test("its sockets aborted by the kernel (SOCK_DESTROY): it goes on", async () => {
    await using lab = new Lab();
    const { a, b } = joined(lab);
    await using _there = await startEnd("wirebadge", B, b, {});
    await using ours = await TunEnd.start(A, a, configOf(A, B));
    await until("an answer", () => reaches(a, B.inside[4]));
    for (let i = 0; i < 3; i++) {
      await a.run("ss", ["-K", "-u", "-a", "sport", "=", "51820"], { check: false });
      await until("an answer", () => reaches(a, B.inside[4]));
    }
    expect(await reaches(b, A.inside[4])).toBe(true);
    expect(ours.program.output).not.toContain("data-thread-restart");
  });

  test("without koffi's library: --tun says what is missing and names the choice; without --tun it runs", async () => {
    await using lab = new Lab();
    const { a } = joined(lab);
    const folder = mkdtempSync(join(tmpdir(), "wirebadge-koffi-"));
    const [file, script] = [join(folder, "wb0.conf"), join(folder, "planted.cjs")];
    writeFileSync(file, configOf(A, B), { mode: 0o600 });
    writeFileSync(script, WITHOUT_KOFFI);
    const words = ["--require", script, WIREBADGE, "wg", file];
    const refused = await a.run(process.execPath, [...words, "--tun"], { check: false });
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/koffi's library is not to be had: Cannot find the native Koffi module/);
    expect(refused.stderr).toMatch(/install Wirebadge again on this machine, or leave out what needs it: --tun/);
    expect(refused.stderr).not.toMatch(/bug|at .*\.ts:/);
    expect(a.ip("link", "show")).not.toContain("wb0");
    const program = new Program("wirebadge", process.execPath, [...words, "--json"], { namespace: a });
    await program.event("ready line", (row) => row["publicKey"]);
    expect(await program.end()).toBe(0);
    rmSync(folder, { recursive: true });
  });
});

/** Packets of 1,000 bytes to a host, as fast as one process can, for so many ms. */
const UDP_FLOOD = `const [host, forMs] = process.argv.slice(1);
  const socket = require("node:dgram").createSocket("udp4");
  const packet = Buffer.alloc(1000);
  socket.bind(() => {
    const endMs = performance.now() + Number(forMs);
    const more = () => {
      if (performance.now() > endMs) return socket.close();
      let left = 64;
      for (let i = 0; i < 64; i++) socket.send(packet, 9, host, () => { if (--left === 0) setImmediate(more); });
    };
    more();
  });`;
