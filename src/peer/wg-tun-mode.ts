// `wirebadge wg FILE.conf --tun NAME`: WireGuard by a plain configuration file, for every process of the host, over a
// TUN device. Packets are the data thread's; here is what lasts longer than it: the device, the sockets, addresses and
// routes, and WireGuard's own interface for wg(8).
import type { Logger } from "pino";
import { formatAddress } from "../base/address.ts";
import { toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { MTU_DEFAULT_BYTES } from "../base/limits.ts";
import { chooseCrypto } from "../io/crypto-choice.ts";
import { Arena } from "../io/ffi/arena.ts";
import { TUN_ARENA_BYTES, TunDevice } from "../io/ffi/tun-device.ts";
import { type UdpPair, UdpSocket, udpSocketArenaBytes } from "../io/ffi/udp-socket.ts";
import { DataThread } from "./data-thread.ts";
import type { DataThreadStatus } from "./data-thread-messages.ts";
import { HostNetwork, journalFolder } from "./tun/host-network.ts";
import { parseWgConfig, type WgConfig } from "./wg-config.ts";
import { WgEndpoints } from "./wg-endpoints.ts";

export interface RunningWgTun {
  readonly publicKey: string;
  readonly addresses: readonly string[];
  readonly entryPoints: readonly [];
  /** The device's name. */
  readonly tun: string;
  status(): Promise<DataThreadStatus>;
  stop(): Promise<void>;
  /** With an error when the device or the data thread is gone for good. */
  readonly stopped: Promise<Error | undefined>;
}

export interface WgTunOptions {
  readonly configText: string;
  /** For messages. */
  readonly fileName: string;
  /** The device's name, 1 to 15 bytes. */
  readonly tunName: string;
  readonly ignoreHooks: boolean;
  readonly requireNative: boolean;
  readonly env: NodeJS.ProcessEnv;
  readonly logger: Logger;
}

/** @throws WirebadgeError CONFIG_INVALID, PORT_TAKEN, NATIVE_UNAVAILABLE, with nothing left on the host */
export async function startWgTunMode(options: WgTunOptions): Promise<RunningWgTun> {
  const config = parseWgConfig(options.fileName, options.configText, { ignoreHooks: options.ignoreHooks });
  const mode = new WgTunMode(options, config);
  try {
    return await mode.start();
  } catch (error) {
    await mode.stop();
    throw error;
  }
}

class WgTunMode {
  readonly #options: WgTunOptions;
  readonly #config: WgConfig;
  readonly #endpoints: WgEndpoints;
  #tun: TunDevice | undefined;
  #udp: UdpPair | undefined;
  #thread: DataThread | undefined;
  #host: HostNetwork | undefined;
  #revision = 0;
  #closed = false;

  constructor(options: WgTunOptions, config: WgConfig) {
    this.#options = options;
    this.#config = config;
    this.#endpoints = new WgEndpoints({ logger: options.logger, onChange: () => this.#applyLater() });
  }

  async start(): Promise<RunningWgTun> {
    const { env, logger, requireNative, tunName } = this.#options;
    const { addresses, fwMark, listenPort, ownAddresses, peers, privateKey, table } = this.#config;
    const mtuBytes = this.#config.mtuBytes ?? MTU_DEFAULT_BYTES;
    const journals = journalFolder(env);
    const { crypto } = chooseCrypto(requireNative ? { require: "native" } : {});
    const keyPair = { privateKey, publicKey: crypto.publicKey(privateKey) };
    const arena = new Arena(TUN_ARENA_BYTES + 2 * udpSocketArenaBytes(1, 1)); // packets are the data thread's
    this.#tun = TunDevice.open(arena, tunName);
    this.#udp = UdpSocket.openPair(arena, {
      port: listenPort ?? 0,
      sendSlots: 1,
      receiveSlots: 1,
    });
    this.#thread = await DataThread.start({
      tun: this.#tun.opened,
      udp: { v4: this.#udp.v4?.opened, v6: this.#udp.v6?.opened },
      keyPair,
      mode: "wg",
      mtuBytes,
      requireNative,
      logger,
      onTunnelUp: (session) => logger.info({ event: "tunnel-up", peer: session }, "tunnel up"),
      onTunnelFailed: (session) => {
        logger.warn({ event: "tunnel-failed", peer: session }, "no answer from a peer");
        this.#endpoints.handshakeFailed(session);
      },
    });
    await this.#endpoints.setPeers(peers);
    await this.#apply();
    const udp = this.#udp;
    this.#host = await HostNetwork.up(
      {
        name: this.#tun.name,
        mtuBytes,
        addresses: addresses.map(({ bits }, i) => ({ address: ownAddresses[i]!, bits })),
        routes: peers.flatMap(({ allowedIps }) => allowedIps),
        table,
        fwMark,
      },
      {
        journalFolder: journals,
        logger,
        setMark: (mark) => {
          udp.v4?.setMark(mark);
          udp.v6?.setMark(mark);
        },
      },
    );
    const thread = this.#thread;
    return {
      publicKey: toBase64(keyPair.publicKey),
      addresses: ownAddresses.map(formatAddress),
      entryPoints: [],
      tun: this.#tun.name,
      status: () => thread.status(),
      stop: () => this.stop(),
      stopped: thread.ended,
    };
  }

  async stop(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#endpoints.close();
    await this.#host?.down();
    await this.#thread?.stop();
    this.#udp?.v4?.close();
    this.#udp?.v6?.close();
    this.#tun?.close();
  }

  #applyLater(): void {
    this.#apply().catch((error: unknown) => {
      if (!this.#closed) this.#options.logger.error({ event: "apply-failed", err: error }, "peers not applied");
    });
  }

  async #apply(): Promise<void> {
    const thread = this.#thread;
    if (this.#closed || thread === undefined) return;
    this.#revision++;
    const refused = await thread.apply({
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
  }
}

/** As wg-quick names it: after the file. @throws WirebadgeError USAGE when that is no interface's name */
export function tunNameOf(fileName: string): string {
  const name = fileName
    .split("/")
    .at(-1)!
    .replace(/\.conf$/, "");
  if (/^[a-zA-Z0-9_=+.-]{1,15}$/.test(name)) return name;
  throw new WirebadgeError("USAGE", `no interface can be called ${name}`, {
    hint: "give it a name of at most 15 letters, digits and _=+.-: --tun wg0",
  });
}
