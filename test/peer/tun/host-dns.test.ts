// Names entered into a host's resolver, over a `resolvectl` and an `ip` on the PATH that write down their calls.
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env } from "node:process";
import { afterEach, beforeEach, expect, test } from "vitest";
import { asksResolved, enterHostDns, type HostDnsPlan, namesByHand } from "../../../src/peer/tun/host-dns.ts";
import { type HostTools, hostTools } from "../../../src/peer/tun/host-tools.ts";
import { undoLeftovers } from "../../../src/peer/tun/undo.ts";
import { readJournals } from "../../../src/peer/tun/undo-journal.ts";
import { address } from "../world.ts";

const PLAN: HostDnsPlan = {
  device: "wb0",
  servers: ["fd00:17::53", "10.99.0.0"].map(address),
  zones: ["test.internal", "99.10.in-addr.arpa"],
};

// `fail` holds "WORDS|MESSAGE": calls that begin with WORDS fail by MESSAGE; once, if `once` is there.
const RESOLVECTL = `#!/bin/sh
at=$(dirname "$0")
if [ $# -eq 2 ] && [ "$1" = dns ]; then echo query >> "$at/queries"; fi
if [ -f "$at/fail" ]; then
  words=$(cut -d'|' -f1 "$at/fail")
  case "$*" in "$words"*) cut -d'|' -f2 "$at/fail" >&2; [ ! -s "$at/once" ] || rm "$at/fail" "$at/once"; exit 1;; esac
fi
if [ $# -eq 2 ] && [ "$1" = dns ]; then echo "Link 7 ($2): $(cat "$at/servers" 2>/dev/null)"; exit 0; fi
echo "$*" >> "$at/calls"
`;
const IP = `#!/bin/sh
at=$(dirname "$0")
[ -f "$at/index" ] || { echo 'Device "wb0" does not exist.' >&2; exit 1; }
echo "[{\\"ifindex\\":$(cat "$at/index"),\\"flags\\":[],\\"mtu\\":1420}]"
`;

let bin = "";
let journals = "";
let path = "";
const logger = { info: () => undefined, warn: () => undefined };

beforeEach(() => {
  bin = mkdtempSync(join(tmpdir(), "wirebadge-dns-"));
  journals = join(bin, "journals");
  program("resolvectl", RESOLVECTL);
  program("ip", IP);
  write("index", "7");
  path = env["PATH"] ?? "";
  env["PATH"] = `${bin}:${path}`;
});
afterEach(() => {
  env["PATH"] = path;
  rmSync(bin, { recursive: true, force: true });
});

function program(name: string, text: string): void {
  writeFileSync(join(bin, name), text);
  chmodSync(join(bin, name), 0o700);
}
const write = (name: string, text: string): void => writeFileSync(join(bin, name), text);
const calls = (): string[] =>
  existsSync(join(bin, "calls")) ? readFileSync(join(bin, "calls"), "utf8").split("\n").filter(Boolean) : [];

const queries = (): number => readFileSync(join(bin, "queries"), "utf8").split("\n").length - 1;

const tools: HostTools = { ...hostTools, isOfServices: () => true };
const enter = (change: Partial<HostTools> = {}, plan = PLAN) =>
  enterHostDns(plan, { journalFolder: journals, logger, tools: { ...tools, ...change } });

const QUIET = ["dnssec wb0 no", "dnsovertls wb0 no", "llmnr wb0 no", "mdns wb0 no"];
const ENTERED = [
  ...QUIET,
  "default-route wb0 no",
  "domain wb0 ~test.internal ~99.10.in-addr.arpa",
  "dns wb0 fd00:17::53 10.99.0.0",
];

test("the network's domains go to this device alone, servers last; the end takes all of it back, once", async () => {
  const names = await enter();
  expect(names.why).toBeUndefined();
  expect(calls()).toEqual(ENTERED);
  expect(readJournals(journals)).toMatchObject([{ device: { name: "wb0", index: 7 }, steps: [{ kind: "names" }] }]);
  await names.leave();
  await names.leave();
  expect(calls()).toEqual([...ENTERED, "revert wb0"]);
  expect(readdirSync(journals)).toEqual([]);
});

test("what a killed process has left is undone by the next start; a device that has gone took it along", async () => {
  const place = { ...tools.place(), pid: 1, start: "9".repeat(19) };
  await enter({ place: () => place });
  expect(await undoLeftovers(journals, tools)).toMatchObject({ undone: [{ device: "wb0", pid: 1 }], left: [] });
  expect(calls()).toEqual([...ENTERED, "revert wb0"]);
  await enter({ place: () => place });
  rmSync(join(bin, "calls"));
  write("index", "8"); // another device of that name
  expect((await undoLeftovers(journals, tools)).undone).toHaveLength(1);
  expect(calls()).toEqual([]);
});

test("no resolvectl, or none for this namespace: nothing is changed, and it says why", async () => {
  rmSync(join(bin, "resolvectl"));
  const has = (name: string): boolean => name !== "resolvectl";
  expect(await enter({ has })).toMatchObject({ why: "systemd-resolved is not on this host" });
  program("resolvectl", RESOLVECTL);
  const elsewhere = await enter({ isOfServices: () => false });
  expect(elsewhere.why).toBe("systemd-resolved is not in this network namespace");
  await elsewhere.leave();
  expect(calls()).toEqual([]);
  expect(existsSync(journals)).toBe(false);
});

test("resolvectl without its service: nothing is changed", async () => {
  write("fail", "dns|Failed to get link data: Unit dbus-org.freedesktop.resolve1.service not found.");
  expect((await enter()).why).toContain("dbus-org.freedesktop.resolve1.service not found");
  expect([calls(), queries()]).toEqual([[], 1]);
});

test("a device that systemd-resolved has not heard of yet is asked for again", async () => {
  write("fail", "dns wb0|Failed to resolve interface: Link 7 not known");
  write("once", "yes");
  expect((await enter()).why).toBeUndefined();
  expect(calls()).toEqual(ENTERED);
});

test("one that it never hears of is given up", async () => {
  write("fail", "dns wb0|Failed to resolve interface: Link 7 not known");
  expect((await enter()).why).toBe("resolvectl dns: Failed to resolve interface: Link 7 not known");
  expect([calls(), queries()]).toEqual([[], 10]);
});

test.each([{ servers: [] }, { zones: [] }])("without names, as %j, nothing is changed", async (change) => {
  expect((await enter({}, { ...PLAN, ...change })).why).toContain("no names");
  expect(existsSync(join(bin, "queries"))).toBe(false);
});

test("DNS servers that somebody else gave the device stay", async () => {
  write("servers", "192.0.2.1 192.0.2.2");
  expect((await enter()).why).toBe("wb0 has DNS servers of somebody else's (192.0.2.1 192.0.2.2)");
  expect(calls()).toEqual([]);
});

test.each(["default-route", "domain", "dns wb0 fd00"])("when `%s` fails, all is taken back", async (words) => {
  write("fail", `${words}|Access denied`);
  const names = await enter();
  expect(names.why).toBe(`resolvectl ${words.split(" ")[0]}: Access denied`);
  expect(calls().at(-1)).toBe("revert wb0");
  expect(calls().some((call) => call.startsWith("dns wb0"))).toBe(false);
  expect(readdirSync(journals)).toEqual([]);
});

test("settings that an older systemd lacks don't matter", async () => {
  write("fail", "dnsovertls|Unknown command verb dnsovertls.");
  expect((await enter()).why).toBeUndefined();
  expect(calls()).toEqual(ENTERED.filter((call) => !call.startsWith("dnsovertls")));
});

test("what can't be undone is said, and stands in the journal for the next start", async () => {
  const names = await enter();
  write("fail", "revert|Access denied");
  await expect(names.leave()).rejects.toMatchObject({ code: "INTERNAL", hint: expect.stringContaining("revert wb0") });
  expect(readJournals(journals)).toHaveLength(1);
});

test("by hand: three commands, or what another resolver is to be told", () => {
  expect(namesByHand(PLAN, { has: () => true })).toBe(
    "resolvectl default-route wb0 no && resolvectl domain wb0 '~test.internal' '~99.10.in-addr.arpa'" +
      " && resolvectl dns wb0 fd00:17::53 10.99.0.0",
  );
  expect(namesByHand(PLAN, { has: () => false })).toBe(
    "let this host's resolver ask fd00:17::53 or 10.99.0.0 for test.internal" +
      " (dnsmasq: server=/test.internal/fd00:17::53)",
  );
});

test.each([
  ["hosts: files resolve [!UNAVAIL=return] dns", "nameserver 192.0.2.1", true],
  ["hosts: files dns", "# stub\nnameserver 127.0.0.53\noptions edns0", true],
  ["hosts: files dns", "nameserver 192.0.2.1", false],
  ["#hosts: resolve", "nameserver 127.0.0.1", false],
])("%j with %j asks systemd-resolved: %s", (nsswitch, resolv, asks) => {
  expect(asksResolved((file) => (file === "/etc/nsswitch.conf" ? nsswitch : resolv))).toBe(asks);
});
