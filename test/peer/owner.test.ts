import { connect, createServer, Socket } from "node:net";
import { afterEach, expect, test } from "vitest";
import { findProcOwner, OwnerCheck } from "../../src/peer/owner.ts";
import { needs } from "../needs.ts";
import { address } from "./world.ts";

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0438 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 100 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:0438 01 00000000:00000000 00:00000000 00000000  1001        0 4711 1 0 20 4 30 10 -1
   2: 0100007F:0438 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1
   3: 0100007F:9C41 0100007F:0438 06 00000000:00000000 03:00001763 00000000     0        0 0 3 0
   4: 0200007F:9C42 0100007F:0438 01 00000000:00000000 00:00000000 00000000  1002        0 0 1 0
`;
const TCP6 =
  `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000001000000:9C43 00000000000000000000000001000000:0438 01 0:0 0:0 0 1003 0 4713 1
   1: 0000000000000000FFFF00000100007F:9C44 0000000000000000FFFF00000100007F:0438 01 0:0 0:0 0 1004 0 4714 1
`.replaceAll(" 0:0 0:0 0 ", " 00000000:00000000 00:00000000 00000000 ");

const at = (host: string, port: number) => ({ address: address(host), port });
const SOCKS = at("127.0.0.1", 1080);

test("/proc's table gives the owner of the client's end, established, with an inode, both ends equal", () => {
  expect(findProcOwner(TCP, at("127.0.0.1", 40_000), SOCKS)).toBe(1001);
  expect(findProcOwner(TCP, at("127.0.0.1", 40_001), SOCKS)).toBeUndefined(); // TIME_WAIT: uid 0, inode 0
  expect(findProcOwner(TCP, at("127.0.0.2", 40_002), SOCKS)).toBeUndefined(); // no inode
  expect(findProcOwner(TCP, at("127.0.0.2", 40_000), SOCKS)).toBeUndefined();
  expect(findProcOwner(TCP, at("127.0.0.1", 40_000), at("127.0.0.1", 1081))).toBeUndefined();
  expect(findProcOwner(TCP, at("0.0.0.0", 0), SOCKS)).toBeUndefined();
  expect(findProcOwner(TCP6, at("::1", 40_003), at("::1", 1080))).toBe(1003);
  expect(findProcOwner(TCP6, at("127.0.0.1", 40_004), SOCKS)).toBe(1004); // a dual-stack client
  expect(findProcOwner("garbage\n:9C40 :9C40 :9C40 01\n", at("127.0.0.1", 40_000), SOCKS)).toBeUndefined();
});

const row = (local: string, remote: string, rest = "01 00000000:00000000 00:00000000 00000000  1001        0 4711 1") =>
  `   0: ${local} ${remote} ${rest}\n`;

test.each([
  ["on its way out", row("0100007F:9C40", "0100007F:0438", "08 0:0 0:0 0 1001 0 4711 1")],
  ["cut off", row("0100007F:9C40", "0100007F:0438", "01")],
  ["with no address at its own end", row("zz:9C40", "0100007F:0438")],
  ["with no address at the other", `${row("0100007F:9C40", "zz:0438")}`],
  ["with a long address", row("0100007F0100007F:9C40", "0100007F:0438")],
  ["without a port", row("0100007F", "0100007F:9C40 ")],
])("a row %s is nobody's", (_what, text) => {
  expect(findProcOwner(text, at("127.0.0.1", 40_000), SOCKS)).toBeUndefined();
});

test("a row of another client to a server of the same port is not ours", () => {
  const server = at("127.0.0.1", 40_000);
  expect(findProcOwner(row("0100007F:0001", "0100007F:9C40"), server, server)).toBeUndefined();
});

test("only loopback addresses are local", () => {
  const check = new OwnerCheck("proc", 0, () => 0);
  const judged = (host: string): boolean => check.judge(at(host, 1), SOCKS).allowed;
  for (const host of ["127.0.0.1", "127.255.0.9", "::1"]) expect(judged(host), host).toBe(true);
  for (const host of ["128.0.0.1", "1::1", "0:0:1::1", "::1:0:1", "::2", "::"]) expect(judged(host), host).toBe(false);
});

test("a socket that is closed again has no owner", () => {
  const check = new OwnerCheck("proc", 0, () => 0);
  const NOBODY = { allowed: false, reason: "not-found", uid: undefined };
  expect(check.judgeSocket(new Socket())).toEqual(NOBODY);
  const half = (remote: string | undefined, local: string | undefined): Socket =>
    Object.create(Socket.prototype, {
      remoteAddress: { value: remote },
      remotePort: { value: 1 },
      localAddress: { value: local },
      localPort: { value: 1 },
    }) as Socket;
  expect(check.judgeSocket(half("127.0.0.1", "127.0.0.1"))).toEqual({ allowed: true });
  expect(check.judgeSocket(half("127.0.0.1", undefined))).toEqual(NOBODY);
  expect(check.judgeSocket(half(undefined, "127.0.0.1"))).toEqual(NOBODY);
});

test("another uid, a client that isn't found, and one that isn't local are refused; root is no exception", () => {
  const check = (uid: number | undefined) => new OwnerCheck("proc", 0, () => uid).judge(at("127.0.0.1", 1), SOCKS);
  expect(check(0)).toEqual({ allowed: true });
  expect(check(1000)).toEqual({ allowed: false, reason: "other-uid", uid: 1000 });
  expect(check(undefined)).toEqual({ allowed: false, reason: "not-found", uid: undefined });
  const root = new OwnerCheck("proc", 1000, () => 0);
  expect(root.judge(at("127.0.0.1", 1), SOCKS)).toEqual({ allowed: false, reason: "other-uid", uid: 0 });
  const remote = new OwnerCheck("proc", 0, () => 0).judge(at("192.0.2.1", 1), SOCKS);
  expect(remote).toMatchObject({ allowed: false, reason: "not-local" });
});

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

test.runIf(needs("linux", "ipv6")).each([
  ["sock-diag", {}],
  ["proc", { native: false }],
] as const)("%s: our own client is let in, on 127.0.0.1 and on ::1", async (mode, options) => {
  const check = OwnerCheck.open(options);
  cleanups.push(() => check.close());
  expect(check.mode).toBe(mode);
  for (const host of ["127.0.0.1", "::1"]) {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
    const client = connect((server.address() as { port: number }).port, host);
    const socket = await accepted;
    cleanups.push(() => {
      client.destroy();
      socket.destroy();
      server.close();
    });
    expect(check.judgeSocket(socket), host).toEqual({ allowed: true });
  }
});
