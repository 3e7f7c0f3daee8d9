// `wirebadge wg FILE.conf`: WireGuard by a plain configuration file, rootless. No coordinator, no policy: everything in
// the file is allowed, and nothing else. Endpoint names are asked of the host's resolver, again when handshakes fail;
// SOCKS names never are.

import { formatAddress } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { MTU_DEFAULT_BYTES, PACKET_MAX_BYTES } from "../base/limits.ts";
import { Engine, type EngineSink } from "../engine/engine.ts";
import { cpuStopwatch, SystemClock, stopwatch } from "../io/clock.ts";
import { chooseCrypto } from "../io/crypto-choice.ts";
import { osRandom } from "../io/os-random.ts";
import { openPacketArena } from "../io/packet-arena.ts";
import { openUdpPort, type UdpPort } from "../io/udp-port.ts";
import { UserspaceStack } from "../netstack/stack.ts";
import { DenialFeed } from "./denial-feed.ts";
import { LoopDriver } from "./driver.ts";
import { EntryPoints } from "./entry-points.ts";
import { Gateway } from "./gateway.ts";
import { parseOffers } from "./gateway-offers.ts";
import type { EntryPoint } from "./local-api-schema.ts";
import type { Logger } from "./logger.ts";
import { StackDialer } from "./overlay-dialer.ts";
import { OverlayDns } from "./overlay-dns.ts";
import { OwnerCheck } from "./owner.ts";
import { PeerViews } from "./peer-views.ts";
import { hostNetwork } from "./real-network.ts";
import { parseWgConfig, type WgConfig, warnOfIgnored } from "./wg-config.ts";
import { WgEndpoints } from "./wg-endpoints.ts";

export interface WgModeOptions {
  readonly configText: string;
  /** For messages. */
  readonly fileName: string;
  readonly socks: string | undefined;
  readonly forwards: readonly string[];
  readonly exposes: readonly string[];
  readonly ignoreHooks: boolean;
  readonly requireNative: boolean;
  readonly logger: Logger;
}

export interface RunningWg {
  readonly publicKey: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly EntryPoint[];
  /** What became of datagrams and packets, by name. */
  counters(): Record<string, number>;
  stop(): Promise<void>;
  /** Never resolves by itself: a configuration file has no end. */
  readonly stopped: Promise<Error | undefined>;
}

/** @throws WirebadgeError CONFIG_INVALID, USAGE, PORT_TAKEN, NATIVE_UNAVAILABLE, with nothing left open */
export async function startWgMode(options: WgModeOptions): Promise<RunningWg> {
  const config = parseWgConfig(options.fileName, options.configText, { ignoreHooks: options.ignoreHooks });
  if (options.socks === "") {
    throw new WirebadgeError("USAGE", "--socks needs a place here: a file has no state folder", {
      hint: "give --socks 127.0.0.1:1080 or --socks unix:/path/in/a/folder/of/yours",
    });
  }
  warnOfIgnored(options.fileName, config, options.logger);
  const mode = new WgMode(options, config);
  try {
    return await mode.start();
  } catch (error) {
    await mode.stop();
    throw error;
  }
}

class WgMode {
  readonly #options: WgModeOptions;
  readonly #config: WgConfig;
  readonly #driver: LoopDriver;
  readonly #engine: Engine;
  readonly #stack: UserspaceStack;
  readonly #views: PeerViews;
  readonly #gateway: Gateway;
  readonly #owner = OwnerCheck.open();
  readonly #endpoints: WgEndpoints;
  readonly #memory = openPacketArena();
  #udp: UdpPort | undefined;
  #entryPoints: EntryPoints | undefined;
  #revision = 0;
  #closed = false;

  constructor(options: WgModeOptions, config: WgConfig) {
    this.#options = options;
    this.#config = config;
    this.#endpoints = new WgEndpoints({ logger: options.logger, onChange: () => this.#apply() });
    const { crypto } = chooseCrypto({
      arena: this.#memory?.arena,
      ...(options.requireNative ? { require: "native" } : {}),
    });
    // A larger packet fits no datagram that a rootless peer reads; the other end learns by the MSS to send none.
    const mtuBytes = Math.min(config.mtuBytes ?? MTU_DEFAULT_BYTES, PACKET_MAX_BYTES);
    this.#driver = new LoopDriver(new SystemClock());
    this.#engine = new Engine({
      crypto,
      random: osRandom,
      keyPair: { privateKey: config.privateKey, publicKey: crypto.publicKey(config.privateKey) },
      mode: "wg",
      mtuBytes,
      sink: this.#engineSink(),
      stopwatch,
      cpuStopwatch,
      leases: { verify: () => undefined },
    });
    this.#stack = new UserspaceStack({
      random: osRandom,
      mtuBytes,
      isSettled: true,
      memory: this.#memory?.stack,
      handler: {
        output: this.#driver.stackOutput,
        tcpOpening: (opening) => this.#gateway.tcpOpening(opening),
        udpOpening: (opening) => this.#gateway.udpOpening(opening),
      },
    });
    this.#views = new PeerViews({
      engine: this.#engine,
      turns: this.#driver,
      denials: new DenialFeed(),
      ownAddresses: () => config.ownAddresses,
      ownSession: () => "",
      tellDenial: () => undefined, // nothing is judged here, and stock peers are told nothing
    });
    this.#gateway = new Gateway({
      view: this.#views,
      turns: this.#driver,
      offers: parseOffers({ routes: [], serves: [], exposes: options.exposes }),
      network: hostNetwork,
      onFlow: (flow) => options.logger.debug({ event: "flow", peer: flow.caller.session }, "flow ended"),
    });
  }

  async start(): Promise<RunningWg> {
    const { listenPort, ownAddresses, peers } = this.#config;
    const { udp, reason } = await openUdpPort(listenPort ?? 0, this.#driver.receiver, this.#memory?.arena);
    this.#udp = udp;
    this.#options.logger.debug({ event: "udp", port: udp.port, kind: udp.kind, reason }, "UDP port open");
    this.#driver.attach({ engine: this.#engine, stack: this.#stack, udp: this.#udp });
    this.#stack.setLocalAddresses(ownAddresses);
    await this.#endpoints.setPeers(peers);
    this.#apply();
    this.#entryPoints = await EntryPoints.open({
      socks: this.#options.socks,
      allowRemote: false,
      forwards: this.#options.forwards,
      dialer: this.#makeDialer(),
      turns: this.#driver,
      owner: this.#owner,
      folder: ".",
      logger: this.#options.logger,
    });
    return {
      publicKey: toBase64(this.#engine.publicKey),
      addresses: ownAddresses.map(formatAddress),
      entryPoints: this.#entryPoints.list(),
      counters: () => this.#engine.counters(),
      stop: () => this.stop(),
      stopped: new Promise(() => undefined),
    };
  }

  async stop(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#endpoints.close();
    this.#driver.turn(() => this.#gateway.close());
    await this.#entryPoints?.close();
    this.#driver.stop();
    await this.#udp?.close();
    this.#owner.close();
  }

  #makeDialer(): StackDialer {
    const { dnsServers, searchDomains } = this.#config;
    const resolver = new OverlayDns({
      stack: this.#stack,
      turns: this.#driver,
      localAddressFor: (remote) => this.#views.localAddressFor(remote),
      servers: dnsServers,
      searchDomains,
      random: osRandom,
    });
    return new StackDialer({
      view: this.#views,
      stack: this.#stack,
      turns: this.#driver,
      ...(dnsServers.length === 0 ? {} : { resolver }),
    });
  }

  #engineSink(): EngineSink {
    return {
      ...this.#driver.engineSink,
      denied: () => undefined, // nothing is judged here
      deniedByPeer: () => undefined,
      flowEnded: () => undefined,
      tunnelWanted: () => undefined,
      tunnelUp: (session) => this.#options.logger.info({ event: "tunnel-up", peer: session }, "tunnel up"),
      tunnelFailed: (session) => {
        this.#options.logger.warn({ event: "tunnel-failed", peer: session }, "no answer from a peer");
        this.#endpoints.handshakeFailed(session);
      },
    };
  }

  #apply(): void {
    if (this.#closed) return;
    this.#revision++;
    this.#driver.turn((nowMs) => {
      const refused = this.#engine.apply(nowMs, {
        epoch: 0,
        revision: this.#revision,
        mode: "wg",
        addresses: this.#config.ownAddresses,
        transit: [],
        filter: undefined,
        peers: this.#endpoints.desiredPeers(),
      });
      for (const { session, reason } of refused) {
        this.#options.logger.error({ event: "peer-refused", peer: session, reason }, "this peer's key can't be used");
      }
    });
  }
}
