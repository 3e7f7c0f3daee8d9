// How connections begin and end: both ends at once, one direction after the other, at once and for good; keepalive,
// urgent data, and a thousand at a time.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type NetConnectOpts, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { decodePacket, PacketInfo, PROTOCOL_TCP, TCP_ACK, TCP_FIN, TCP_SYN } from "../../../src/wire/packet.ts";
import { blocks, connectKernel, dial, hashOf, hashOfBlocks, listen, pair, pourInto, type StackEnd } from "./ends.ts";
import type { End } from "./wire.ts";
import { type Family, KERNEL, STACK, type World } from "./world.ts";

const BYTES = 100_000;

/** Both SYNs are on their way before either arrives: the wire is slow enough. */
async function openAtOnce(world: World, family: Family, port: number): Promise<unknown> {
  const syns: Record<End, boolean> = { stack: false, kernel: false };
  const info = new PacketInfo();
  const before = world.wire.tap;
  world.wire.tap = (to, bytes) => {
    const isTcp = decodePacket(bytes, 0, bytes.length, info) === undefined && info.protocol === PROTOCOL_TCP;
    const isOurs = info.sourcePort === port || info.destinationPort === port;
    if (isTcp && isOurs && (info.tcpFlags & (TCP_SYN | TCP_ACK)) === TCP_SYN) syns[to] = true;
    return before?.(to, bytes);
  };
  const end = dial(world, family, port);
  const remote = { host: STACK[family], port: end.connection.local.port };
  const socket = connect({
    ...remote,
    localPort: port,
    localAddress: KERNEL[family],
    allowHalfOpen: true,
  } as NetConnectOpts);
  await Promise.all([once(socket, "connect"), end.opened.promise]);
  end.pour(blocks(BYTES, 1));
  const [down] = await Promise.all([hashOf(socket), pourInto(socket, blocks(BYTES, 2))]);
  const whole = [(await end.ended.promise) === hashOfBlocks(BYTES, 2), down === hashOfBlocks(BYTES, 1)];
  return { whole, closed: await end.gone.promise, crossed: syns.stack && syns.kernel };
}

/** Both FINs are on their way before either arrives. */
async function closeAtOnce(world: World, family: Family, port: number): Promise<unknown> {
  const { socket, end } = await pair(world, family, "kernel", port);
  const closed = once(socket, "close") as Promise<[boolean]>;
  const fins = new Set<string>(); // a busy machine may see one twice before the other
  const info = new PacketInfo();
  const before = world.wire.tap;
  world.wire.tap = (to, bytes) => {
    const isFin = decodePacket(bytes, 0, bytes.length, info) === undefined && (info.tcpFlags & TCP_FIN) !== 0;
    if (info.protocol === PROTOCOL_TCP && isFin && (info.sourcePort === port || info.destinationPort === port))
      fins.add(to);
    return before?.(to, bytes);
  };
  socket.resume();
  socket.end("last");
  end.connection.write(world.nowMs(), Buffer.from("word"));
  end.connection.end(world.nowMs());
  const [hadError] = await closed;
  return { hadError, closed: await end.gone.promise, fins: [...fins].sort(), received: end.receivedBytes };
}

/** One direction ends, the other carries on. */
async function halfClose(world: World, family: Family, first: "kernel" | "stack", port: number): Promise<unknown> {
  const { socket, end } = await pair(world, family, "kernel", port);
  if (first === "kernel") {
    socket.end("question");
    await end.ended.promise;
    await delay(100);
    end.pour(blocks(BYTES, port));
    return { whole: (await hashOf(socket)) === hashOfBlocks(BYTES, port), closed: await end.gone.promise };
  }
  end.connection.end(world.nowMs());
  await hashOf(socket);
  await delay(100);
  await pourInto(socket, blocks(BYTES, port));
  return { whole: (await end.ended.promise) === hashOfBlocks(BYTES, port), closed: await end.gone.promise };
}

/** With bytes on their way, both ways. */
async function resets(world: World, family: Family, port: number): Promise<unknown> {
  const first = await pair(world, family, "kernel", port);
  const failed = once(first.socket, "error") as Promise<[NodeJS.ErrnoException]>;
  first.end.connection.write(world.nowMs(), new Uint8Array(50_000));
  first.end.connection.abort(world.nowMs());
  const second = await pair(world, family, "kernel", port);
  second.socket.write(new Uint8Array(50_000));
  second.end.connection.write(world.nowMs(), new Uint8Array(50_000));
  await delay(20);
  second.socket.resetAndDestroy();
  return [(await failed)[0].code, await second.end.gone.promise];
}

/** Linux asks each second, and would give up after the third silence. */
async function keepalive(_world: World, family: Family, port: number): Promise<unknown> {
  const { socket, end } = await pair(_world, family, "kernel", port);
  let lost = "";
  socket.on("error", (error) => {
    lost = String(error);
  });
  socket.setKeepAlive(true, 1_000);
  await delay(5_500);
  socket.end("still there");
  await end.ended.promise;
  end.connection.end(_world.nowMs());
  return { lost, received: end.receivedBytes, closed: await end.gone.promise };
}

const URGENT = `
  use Socket qw(:all);
  my ($family, $host, $port) = @ARGV;
  my $v6 = $family eq "v6";
  socket(my $s, $v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0) or die "socket: $!";
  my $to = $v6 ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $host)) : pack_sockaddr_in($port, inet_aton($host));
  connect($s, $to) or die "connect: $!";
  for my $part ("before", "!", "between", "?", "after") {
    send($s, $part, length($part) == 1 ? MSG_OOB : 0) or die "send: $!";
    select(undef, undef, undef, 0.1);
  }
  shutdown($s, 1);
  my $n = sysread($s, my $bytes, 10);
`;

/** Urgent bytes stay in their place in the stream (RFC 6093 §4). */
async function urgent(world: World, family: Family, port: number): Promise<unknown> {
  let text = "";
  let flags = 0;
  const info = new PacketInfo();
  const before = world.wire.tap;
  world.wire.tap = (to, bytes) => {
    if (decodePacket(bytes, 0, bytes.length, info) === undefined && info.destinationPort === port)
      flags |= info.tcpFlags;
    return before?.(to, bytes);
  };
  const accepted = new Promise<StackEnd>((resolve) => {
    listen(world, family, port, (end) => {
      end.onBytes = (bytes) => {
        text += Buffer.from(bytes).toString();
      };
      resolve(end);
    });
  });
  const child = spawn("perl", ["-e", URGENT, family, STACK[family], String(port)], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (said: string) => (complaint += said));
  const end = await accepted;
  await end.ended.promise;
  end.connection.end(world.nowMs());
  await once(child, "close");
  return { text, complaint, wasUrgent: (flags & 0x20) !== 0, closed: await end.gone.promise };
}

/** Half of them opened by each end; each says its number and hears it again. */
async function many(world: World, count: number): Promise<unknown> {
  const port = 7_900;
  const server = createServer({ allowHalfOpen: true }, (socket) => void socket.pipe(socket)).listen(port, KERNEL.v6);
  await once(server, "listening");
  listen(world, "v6", port, (end) => {
    end.onBytes = (bytes) => void end.connection.write(world.nowMs(), bytes);
    void end.ended.promise.then(() => end.connection.end(world.nowMs()));
  });
  let most = 0;
  let opened = 0;
  const allOpen = Promise.withResolvers<void>();
  const untilAllAreOpen = (): Promise<void> => {
    opened++;
    most = Math.max(most, world.stack.counters["TCP_CONNECTIONS"] ?? 0);
    if (opened === count) allOpen.resolve();
    return allOpen.promise;
  };
  const fromKernel = async (index: number): Promise<boolean> => {
    const socket: Socket = await connectKernel("v6", port);
    const said = `connection ${index} `.repeat(50);
    let heard = "";
    socket.setEncoding("utf8").on("data", (text: string) => (heard += text));
    socket.write(said);
    await untilAllAreOpen();
    socket.end();
    await once(socket, "end");
    return heard === said;
  };
  const fromStack = async (index: number): Promise<boolean> => {
    const end = dial(world, "v6", port);
    const said = `connection ${index} `.repeat(50);
    let heard = "";
    end.onBytes = (bytes) => {
      heard += Buffer.from(bytes).toString();
    };
    await end.opened.promise;
    end.connection.write(world.nowMs(), Buffer.from(said));
    await untilAllAreOpen();
    end.connection.end(world.nowMs());
    await end.ended.promise;
    return heard === said;
  };
  const right = await Promise.all(Array.from({ length: count / 2 }, (_, i) => [fromKernel(i), fromStack(i)]).flat());
  server.close();
  return { right: right.filter(Boolean).length, atOnce: most >= count };
}

const each = (name: string, work: (world: World, family: Family, port: number) => Promise<unknown>, port: number) => ({
  [`${name} v4`]: (world: World) => work(world, "v4", port),
  [`${name} v6`]: (world: World) => work(world, "v6", port + 1),
});

export const closings = {
  together: {
    ...each("opened at once", openAtOnce, 7_200),
    ...each("closed at once", closeAtOnce, 7_210),
    ...each("kernel ends first", (world, family, port) => halfClose(world, family, "kernel", port), 7_220),
    ...each("stack ends first", (world, family, port) => halfClose(world, family, "stack", port), 7_230),
    ...each("reset", resets, 7_240),
    ...each("keepalive", keepalive, 7_250),
    ...each("urgent", urgent, 7_260),
  },
  inOrder: {
    "a thousand": (world: World) => many(world, 1_000),
  },
};
