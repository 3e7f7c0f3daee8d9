// A SOCKS5 client (RFC 1928, RFC 1929) and a small HTTP request over it: what the quickstart and the tests use as a
// program behind an agent's entry point.
import { request } from "node:http";
import { createConnection, type Socket } from "node:net";
import { concatBytes, utf8 } from "../base/bytes.ts";

export type SocksEntry = { readonly host: string; readonly port: number } | { readonly path: string };

/** RFC 1928 §6, as far as they differ to a caller. */
const REPLIES: Readonly<Record<number, string>> = {
  1: "general failure",
  2: "not allowed by the rules",
  3: "network unreachable",
  4: "host unreachable",
  5: "connection refused",
  7: "command not supported",
  8: "address type not supported",
};

/** The proxy answered, and the answer was no. */
export class SocksReplyError extends Error {
  override readonly name = "SocksReplyError";
  readonly reply: number;

  constructor(reply: number) {
    super(`SOCKS reply ${reply}: ${REPLIES[reply] ?? "unknown"}`);
    this.reply = reply;
  }
}

/** `127.0.0.1:1080`, `[::1]:1080` or the path of a unix socket, as the ready line of `wirebadge up` names it. */
export function parseSocksEntry(listen: string): SocksEntry {
  const match = /^(?:\[([^\]]+)\]|([^:[\]/]+)):(\d{1,5})$/.exec(listen);
  return match === null ? { path: listen } : { host: match[1] ?? match[2] ?? "", port: Number(match[3]) };
}

export interface SocksConnect {
  readonly host: string;
  readonly port: number;
  readonly user?: string;
  readonly password?: string;
  readonly timeoutMs?: number;
}

/** A connected stream to `host`, which the proxy resolves. @throws SocksReplyError, or what the socket gave */
export function connectThroughSocks(entry: SocksEntry, target: SocksConnect): Promise<Socket> {
  const socket = createConnection({ ...entry, allowHalfOpen: true });
  const limit = setTimeout(
    () => socket.destroy(new Error("the SOCKS proxy did not answer in time")),
    target.timeoutMs ?? 10_000,
  );
  return new Promise<Socket>((resolve, reject) => {
    const fail = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    socket.once("error", fail);
    socket.once("close", () => fail(new Error("the SOCKS proxy closed the connection")));
    exchange(socket, target).then(() => {
      socket.removeAllListeners("error");
      socket.removeAllListeners("close");
      resolve(socket);
    }, fail);
  }).finally(() => clearTimeout(limit));
}

async function exchange(socket: Socket, { host, port, user, password }: SocksConnect): Promise<void> {
  const withPassword = user !== undefined && password !== undefined;
  socket.write(Uint8Array.of(5, 1, withPassword ? 2 : 0));
  const [, method] = await readExactly(socket, 2);
  if (method === 255) throw new Error("the SOCKS proxy wants another way of logging in");
  if (withPassword) {
    const [name, secret] = [utf8(user), utf8(password)];
    socket.write(concatBytes(Uint8Array.of(1, name.length), name, Uint8Array.of(secret.length), secret));
    const [, status] = await readExactly(socket, 2);
    if (status !== 0) throw new Error("the SOCKS proxy refused the user name or the password");
  }
  const name = utf8(host);
  socket.write(concatBytes(Uint8Array.of(5, 1, 0, 3, name.length), name, Uint8Array.of(port >> 8, port & 255)));
  const head = await readExactly(socket, 4);
  if (head[1] !== 0) throw new SocksReplyError(head[1] ?? 1);
  const bound = head[3] === 1 ? 4 : head[3] === 4 ? 16 : ((await readExactly(socket, 1))[0] ?? 0);
  await readExactly(socket, bound + 2);
}

/** Exactly `length` bytes; what comes after them stays in the stream. */
async function readExactly(socket: Socket, length: number): Promise<Uint8Array> {
  let got = Buffer.alloc(0);
  for (;;) {
    // No more than is there: a stream that holds a part of what was asked for says "readable" without end.
    const chunk: Buffer | null = socket.read(Math.min(length - got.length, socket.readableLength) || undefined);
    if (chunk !== null) got = Buffer.concat([got, chunk]);
    if (got.length === length) return got;
    if (socket.readableEnded || socket.destroyed) throw new Error("the SOCKS proxy ended the connection");
    await new Promise<void>((resolve) => {
      const go = (): void => {
        socket.off("readable", go).off("end", go).off("close", go);
        resolve();
      };
      socket.on("readable", go).on("end", go).on("close", go);
    });
  }
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

/** One request over a stream that is already connected. */
export function httpGet(socket: Socket, host: string, path: string, timeoutMs = 10_000): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { host, path, method: "GET", headers: { host, connection: "close" }, createConnection: () => socket },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          body += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
        response.on("error", reject);
      },
    );
    sent.setTimeout(timeoutMs, () => sent.destroy(new Error("no HTTP answer in time")));
    sent.on("error", reject);
    sent.end();
  });
}
