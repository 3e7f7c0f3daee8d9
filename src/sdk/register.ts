// `node --import wirebadge/register app.js`: an unchanged program's connections to overlay addresses, routes and names
// go over the network, and only those. Wherever Node or a library connects, it ends at Socket.connect, tls.connect or
// dns.lookup: these are replaced by ones that ask first whose host it is.
import dns, { type LookupAddress, type LookupOptions } from "node:dns";
import { readFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { type NetConnectOpts, Socket, type TcpNetConnectOpts } from "node:net";
import tls, { type ConnectionOptions, type TLSSocket } from "node:tls";
import { isMainThread } from "node:worker_threads";
import { WirebadgeError } from "../base/errors.ts";
import { readConnect } from "../peer/overlay-socket.ts";
import { adoptSocket } from "./adopted-socket.ts";
import { join } from "./join.ts";
import type { Network } from "./network.ts";
import { lookUp } from "./overlay-lookup.ts";

const EXIT_USAGE = 2;

/** From WIREBADGE_TOKEN or the file that WIREBADGE_TOKEN_FILE names; no child of this process inherits the first. */
function tokenFrom(env: NodeJS.ProcessEnv): string | undefined {
  const token = env["WIREBADGE_TOKEN"];
  delete env["WIREBADGE_TOKEN"];
  const file = env["WIREBADGE_TOKEN_FILE"];
  if (token !== undefined || file === undefined) return token;
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new WirebadgeError("TOKEN_INVALID", `the token file ${file} can't be read`, {
      hint: "WIREBADGE_TOKEN_FILE names it: see that the path is right and that the file is yours to read",
      cause: error,
    });
  }
}

/** Where it leads, if it is the network's. Its own way to the coordinator is never. */
function overlayPlace(net: Network, options: NetConnectOpts, direct: URL): TcpNetConnectOpts | undefined {
  if (!("port" in options) || ("path" in options && options.path !== undefined && options.path !== null))
    return undefined;
  const { host, port } = options;
  if (host === undefined || !net.hosts.covers(host)) return undefined; // of a network that has ended, too
  const defaultPort = direct.protocol === "https:" ? "443" : "80";
  if (host === direct.hostname.replace(/^\[|\]$/g, "") && String(port) === (direct.port || defaultPort))
    return undefined;
  return options;
}

function replaceConnect(net: Network, direct: URL): void {
  const connect = Socket.prototype.connect;
  Socket.prototype.connect = function (this: Socket, ...args: never[]): Socket {
    const { options, done } = readConnect(args);
    // A TLSSocket has its handle from the start: tls.connect below gave it one of the network, or none.
    const isPlain = Reflect.get(this, "_handle") === null || Reflect.get(this, "_handle") === undefined;
    const place = isPlain ? overlayPlace(net, options, direct) : undefined;
    if (place === undefined) return Reflect.apply(connect, this, args) as Socket;
    if (done !== undefined) this.once("connect", done);
    adoptSocket(net, this, { host: String(place.host), port: Number(place.port) });
    return this;
  } as typeof connect;
}

function replaceTlsConnect(net: Network, direct: URL): void {
  const { connect } = tls;
  const replaced = (...args: unknown[]): TLSSocket => {
    const { options, done } = readTlsConnect(args);
    const place =
      options.socket === undefined ? overlayPlace(net, options as unknown as NetConnectOpts, direct) : undefined;
    if (place === undefined) return Reflect.apply(connect, tls, args) as TLSSocket;
    const socket = net.connect({ host: String(place.host), port: Number(place.port) });
    const servername = options.servername ?? serverName(String(place.host));
    const secured = connect({ ...options, socket, servername }, done);
    if (options.timeout !== undefined) secured.setTimeout(options.timeout);
    return secured;
  };
  tls.connect = replaced as typeof connect;
}

/** (options[, done]), (port[, host][, options][, done]). */
function readTlsConnect(args: readonly unknown[]): { options: ConnectionOptions; done: (() => void) | undefined } {
  const { options, done } = readConnect(args);
  const more = args.slice(1).find((arg) => typeof arg === "object" && arg !== null);
  return { options: { ...(options as ConnectionOptions), ...(more as ConnectionOptions | undefined) }, done };
}

/** SNI holds no addresses (RFC 6066 §3). */
function serverName(host: string): string {
  return /^[\d.]+$|:/.test(host) ? "" : host;
}

function replaceLookup(net: Network): void {
  const { lookup } = dns;
  const { lookup: lookupPromised } = dns.promises;
  const isOurs = (host: unknown): host is string =>
    typeof host === "string" && net.hosts.covers(host) && net.hosts.addressesOf(host).length > 0;
  dns.lookup = ((host: string, ...rest: unknown[]) =>
    isOurs(host)
      ? Reflect.apply(net.lookup, net, [host, ...rest])
      : Reflect.apply(lookup, dns, [host, ...rest])) as typeof lookup;
  dns.promises.lookup = (async (host: string, options: LookupOptions | number = {}) => {
    if (!isOurs(host)) return await Reflect.apply(lookupPromised, dns.promises, [host, options]);
    const asked = typeof options === "number" ? { family: options } : options;
    const found: LookupAddress[] = lookUp(net.hosts, host, asked);
    return asked.all === true ? found : found[0];
  }) as typeof lookupPromised;
}

async function register(): Promise<void> {
  const { env } = process;
  if (["WIREBADGE_TOKEN", "WIREBADGE_TOKEN_FILE", "WIREBADGE_STATE"].every((name) => env[name] === undefined)) {
    throw new WirebadgeError("USAGE", "wirebadge/register was given neither a token nor a state folder", {
      hint: "set WIREBADGE_TOKEN or WIREBADGE_TOKEN_FILE, or WIREBADGE_STATE to a folder that holds a session",
    });
  }
  const net = await join({ token: tokenFrom(env), state: env["WIREBADGE_STATE"], url: env["WIREBADGE_URL"] });
  const direct = new URL((await net.status()).coordinator!.url);
  replaceConnect(net, direct);
  replaceTlsConnect(net, direct);
  replaceLookup(net);
  syncBuiltinESMExports(); // for `import { connect } from "node:tls"`
  // Without a folder the session ends with the program, as far as that ends by itself.
  process.once("beforeExit", () => void net.close());
  net.on("close", (error) => {
    if (error !== undefined) complain(error);
  });
}

function complain(error: unknown): void {
  if (!(error instanceof WirebadgeError)) throw error;
  const hint = error.hint === undefined ? "" : `\n  ${error.hint}`;
  process.stderr.write(`wirebadge: ${error.code}: ${error.message}${hint}\n`);
}

// A worker has this module too, and no session of its own: it goes without the network.
if (isMainThread) {
  try {
    await register();
  } catch (error) {
    complain(error);
    process.exit(EXIT_USAGE); // a program that was meant to run on the network does not run without it
  }
}
