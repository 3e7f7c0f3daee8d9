// The device of `wirebadge wg --tun` as wg(8) knows it: keys, sockets and peers, told first by the file and then over
// UAPI. It outlives the data thread, which is started again where a running one can't change: its key, its sockets.

import { type Endpoint, formatAddress, formatPrefix, parseAddress } from "../../base/address.ts";
import { assert } from "../../base/assert.ts";
import { equalBytes, toBase64, toHex } from "../../base/bytes.ts";
import { randomBytes } from "../../base/random.ts";
import { KEY_BYTES, type KeyPair } from "../../crypto/provider.ts";
import type { DesiredPeer, DesiredState } from "../../engine/desired-state.ts";
import { chooseCrypto } from "../../io/crypto-choice.ts";
import type { OpenedTun } from "../../io/ffi/tun-device.ts";
import type { UdpPair } from "../../io/ffi/udp-socket.ts";
import { osRandom } from "../../io/os-random.ts";
import { REJECT_AFTER_TIME_MS } from "../../wireguard/deadlines.ts";
import { DataThread, type DataThreadRecovery } from "../data-thread.ts";
import type { DataThreadStatus } from "../data-thread-messages.ts";
import type { Logger } from "../logger.ts";
import type { WgConfig, WgEndpoint, WgPeer } from "../wg-config.ts";
import { WgEndpoints } from "../wg-endpoints.ts";
import { closeSockets, openedOf, openSockets, tryToOpen } from "./outer-sockets.ts";
import { UAPI_ERRNO, type UapiChange, type UapiDevice } from "./uapi-codec.ts";
import { changeDevice, clampKey, type DeviceConfig, type PeerConfig } from "./uapi-config.ts";
import type { UapiBackend } from "./uapi-server.ts";

export interface WgTunDeviceOptions {
  readonly config: WgConfig;
  readonly tun: OpenedTun;
  readonly mtuBytes: number;
  readonly requireNative: boolean;
  readonly logger: Logger;
  /** What the host's policy routing needs the sockets to be marked with; 0: nothing. */
  readonly hostMark: () => number;
  /** Peers may be at other endpoints than before. */
  readonly onApplied: () => void;
}

/** Of a peer in data threads that have ended. */
interface Former {
  readonly receivedBytes: number;
  readonly sentBytes: number;
  /** Unix time; 0: never. */
  readonly lastHandshakeMs: number;
  readonly endpoint: Endpoint | undefined;
}

const NOTHING: Former = { receivedBytes: 0, sentBytes: 0, lastHandshakeMs: 0, endpoint: undefined };

export class WgTunDevice implements UapiBackend {
  readonly #options: WgTunDeviceOptions;
  readonly #crypto;
  readonly #endpoints: WgEndpoints;
  #device: DeviceConfig;
  #udp: UdpPair;
  #thread: DataThread | undefined;
  /** The system has chosen the port: asked once more for any port it keeps this one, and with it the sessions. */
  #isPortChosen: boolean;
  #mark = 0;
  #revision = 0;
  #turn: Promise<unknown> = Promise.resolve();
  #closed = false;
  // By public keys in base64.
  readonly #former = new Map<string, Former>();
  readonly #told = new Map<string, number>();
  readonly #named: Map<string, WgEndpoint>;

  /** Opens the sockets. @throws WirebadgeError PORT_TAKEN, NATIVE_UNAVAILABLE */
  constructor(options: WgTunDeviceOptions) {
    const { config, logger, requireNative } = options;
    this.#options = options;
    this.#crypto = chooseCrypto(requireNative ? { require: "native" } : {}).crypto;
    this.#endpoints = new WgEndpoints({ logger, onChange: () => this.#applyLater() });
    this.#udp = openSockets(config.listenPort ?? 0, 0);
    this.#isPortChosen = (config.listenPort ?? 0) === 0;
    this.#device = {
      privateKey: clampKey(config.privateKey),
      listenPort: this.#udp.port,
      fwMark: config.fwMark,
      peers: new Map(config.peers.map((peer) => [toHex(peer.publicKey), peerConfig(peer)])),
    };
    const named = config.peers.flatMap(({ publicKey, endpoint }) =>
      endpoint === undefined || parseAddress(endpoint.host) !== undefined
        ? []
        : [[toBase64(publicKey), endpoint] as const],
    );
    this.#named = new Map(named);
  }

  /** @throws WirebadgeError NATIVE_UNAVAILABLE */
  async start(): Promise<void> {
    const { logger, mtuBytes, requireNative, tun } = this.#options;
    await this.#endpoints.setPeers(this.#wgPeers());
    this.#thread = await DataThread.start({
      tun,
      udp: openedOf(this.#udp),
      keyPair: this.#keyPair(),
      mode: "wg",
      mtuBytes,
      requireNative,
      logger,
      onNotice: (notice) => {
        if (notice.kind === "tunnel-up") logger.info({ event: "tunnel-up", peer: notice.session }, "tunnel up");
        if (notice.kind !== "tunnel-failed") return;
        logger.warn({ event: "tunnel-failed", peer: notice.session }, "no answer from a peer");
        this.#endpoints.handshakeFailed(notice.session);
      },
      onFailed: (last) => this.#recover(last),
    });
    await this.#apply();
  }

  get publicKey(): Uint8Array {
    return this.#keyPair().publicKey;
  }

  get ended(): Promise<Error | undefined> {
    return this.#running.ended;
  }

  status(): Promise<DataThreadStatus> {
    return this.#running.status();
  }

  /** Where peers are by the file, by wg(8), or by what a data thread that has ended had heard. */
  endpoints(): readonly Endpoint[] {
    return this.#desiredPeers().flatMap(({ endpoints }) => endpoints);
  }

  /** Nothing is shown or changed while `work` is on. */
  inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined); // told to whoever asked for it
    return done;
  }

  /** SO_MARK of both sockets; 0: none. @throws WirebadgeError NATIVE_UNAVAILABLE */
  setMark(mark: number): void {
    this.#udp.v4?.setMark(mark);
    this.#udp.v6?.setMark(mark);
    this.#mark = mark;
  }

  get(): Promise<UapiDevice> {
    return this.inTurn(() => this.#get());
  }

  set(change: UapiChange): Promise<number> {
    return this.inTurn(() => this.#set(change));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#endpoints.close();
    await this.#turn;
    await this.#sayCounters();
    await this.#thread?.stop();
    closeSockets(this.#udp);
  }

  /** What became of datagrams and packets: nothing else shows it, UAPI has no room for it. */
  async #sayCounters(): Promise<void> {
    const status = await this.#thread?.status().catch(() => undefined); // it is gone, and has said why
    if (status === undefined) return;
    this.#options.logger.info({ event: "counters", counters: status.counters }, "datagrams and packets by name");
  }

  get #running(): DataThread {
    assert(this.#thread !== undefined, "a device that was started");
    return this.#thread;
  }

  async #get(): Promise<UapiDevice> {
    const now = this.#withFormer(await this.#running.status());
    const desired = new Map(this.#desiredPeers().map((peer) => [peer.session, peer]));
    const peers = [...this.#device.peers.values()].map((peer) => {
      const session = toBase64(peer.publicKey);
      const { endpoint = desired.get(session)?.endpoints[0], ...counts } = now.get(session) ?? NOTHING;
      return { ...peer, ...counts, endpoint, allowedIps: peer.allowedIps.values() };
    });
    return { ...this.#device, fwMark: this.#mark, peers };
  }

  async #set(change: UapiChange): Promise<number> {
    if (this.#closed) return UAPI_ERRNO.EIO;
    const former = this.#device;
    const next = changeDevice(former, change, (key) => this.#crypto.publicKey(key));
    if (typeof next === "number") return next;
    const port = change.listenPort ?? former.listenPort;
    const isMoved = port !== former.listenPort && !(port === 0 && this.#isPortChosen);
    // Where the host's default route goes by a mark, "off" is that mark, as before anybody had set one: `wg syncconf`
    // with the file that was started sends it, and would else turn the outer datagrams back into the device.
    const mark = next.fwMark === 0 ? this.#options.hostMark() : next.fwMark;
    const isOtherKey = !isSameKey(former.privateKey, next.privateKey);
    const last = isMoved || isOtherKey ? await this.#running.status() : undefined;
    const formerUdp = this.#udp;
    const udp = isMoved ? tryToOpen(port, mark) : formerUdp;
    if (udp === undefined) return UAPI_ERRNO.EADDRINUSE;
    if (!isMoved && mark !== this.#mark) this.setMark(mark);
    this.#udp = udp;
    this.#mark = mark;
    this.#device = { ...next, listenPort: udp.port };
    if (change.listenPort !== undefined) this.#isPortChosen = port === 0;
    if (last !== undefined) for (const [session, row] of this.#withFormer(last)) this.#former.set(session, row);
    this.#notePeers(change);
    await this.#endpoints.setPeers(this.#wgPeers());
    try {
      if (last === undefined) await this.#apply();
      else await this.#replaceThread(isOtherKey);
    } finally {
      if (formerUdp !== udp) closeSockets(formerUdp);
    }
    const { listenPort, peers } = this.#device;
    this.#options.logger.info({ event: "device-set", listenPort, peers: peers.size }, "settings changed over UAPI");
    return UAPI_ERRNO.OK;
  }

  /** What is known of peers besides their settings. */
  #notePeers(change: UapiChange): void {
    if (change.replacePeers) this.#named.clear();
    for (const { publicKey, remove, endpoint } of change.peers) {
      const session = toBase64(publicKey);
      if (!remove && endpoint === undefined) continue;
      this.#named.delete(session);
      const former = this.#former.get(session);
      if (former !== undefined) this.#former.set(session, { ...former, endpoint: undefined });
      if (endpoint !== undefined) this.#told.set(session, (this.#told.get(session) ?? 0) + 1);
    }
    const there = new Set([...this.#device.peers.values()].map(({ publicKey }) => toBase64(publicKey)));
    for (const known of [this.#named, this.#former, this.#told]) {
      for (const session of known.keys()) if (!there.has(session)) known.delete(session);
    }
  }

  async #replaceThread(isOtherKey: boolean): Promise<void> {
    const state = this.#nextState();
    await this.#running.replace({ keyPair: this.#keyPair(), udp: openedOf(this.#udp), state });
    if (!isOtherKey) this.#running.reach(this.#withSessions(state));
    this.#options.onApplied();
  }

  /** Who still has a session with the thread that ended, and would send under it for some while. */
  #withSessions({ peers }: DesiredState): string[] {
    const sinceMs = Date.now() - REJECT_AFTER_TIME_MS;
    const isLive = (session: string): boolean => (this.#former.get(session)?.lastHandshakeMs ?? 0) > sinceMs;
    return peers.map(({ session }) => session).filter(isLive);
  }

  /** What a thread that failed had counted, and where it had heard its peers, goes along. */
  #recover(last: DataThreadStatus | undefined): DataThreadRecovery {
    if (last !== undefined) for (const [session, row] of this.#withFormer(last)) this.#former.set(session, row);
    const state = this.#nextState();
    return { state, reach: this.#withSessions(state) };
  }

  /** What the thread counts, on top of what those before it have. */
  #withFormer({ nowMs, peers }: DataThreadStatus): Map<string, Former> {
    const all = new Map(this.#former);
    const wallMs = Date.now();
    for (const { session, endpoint, lastHandshakeMs, receivedBytes, sentBytes } of peers) {
      const former = all.get(session) ?? NOTHING;
      all.set(session, {
        receivedBytes: former.receivedBytes + receivedBytes,
        sentBytes: former.sentBytes + sentBytes,
        lastHandshakeMs: lastHandshakeMs === undefined ? former.lastHandshakeMs : wallMs - (nowMs - lastHandshakeMs),
        endpoint: endpoint ?? former.endpoint,
      });
    }
    return all;
  }

  /** Without a private key: one that nobody knows the public half of, so that nothing is answered. */
  #keyPair(): KeyPair {
    const privateKey = this.#device.privateKey ?? randomBytes(osRandom, KEY_BYTES);
    return { privateKey, publicKey: this.#crypto.publicKey(privateKey) };
  }

  #wgPeers(): WgPeer[] {
    return [...this.#device.peers.values()].map((peer) => ({
      publicKey: peer.publicKey,
      presharedKey: peer.presharedKey,
      allowedIps: [...peer.allowedIps.values()],
      endpoint:
        peer.endpoint === undefined
          ? this.#named.get(toBase64(peer.publicKey))
          : { host: formatAddress(peer.endpoint.address), port: peer.endpoint.port },
      persistentKeepaliveSeconds: peer.persistentKeepaliveSeconds,
      line: 0,
    }));
  }

  #desiredPeers(): DesiredPeer[] {
    return this.#endpoints.desiredPeers().map((peer) => {
      const roamedTo = this.#former.get(peer.session)?.endpoint;
      const endpointsTold = this.#told.get(peer.session);
      return {
        ...peer,
        endpoints: roamedTo === undefined ? peer.endpoints : [roamedTo, ...peer.endpoints],
        ...(endpointsTold === undefined ? {} : { endpointsTold }),
      };
    });
  }

  #nextState(): DesiredState {
    return {
      epoch: 0,
      revision: ++this.#revision,
      mode: "wg",
      addresses: this.#options.config.ownAddresses,
      transit: [],
      filter: undefined,
      peers: this.#device.privateKey === undefined ? [] : this.#desiredPeers(),
    };
  }

  async #apply(): Promise<void> {
    if (this.#closed) return;
    for (const { session, reason } of await this.#running.apply(this.#nextState())) {
      this.#options.logger.error({ event: "peer-refused", peer: session, reason }, "this peer's key can't be used");
    }
    this.#options.onApplied();
  }

  #applyLater(): void {
    this.inTurn(() => this.#apply()).catch((error: unknown) => {
      if (!this.#closed) this.#options.logger.error({ event: "apply-failed", err: error }, "peers not applied");
    });
  }
}

function isSameKey(one: Uint8Array | undefined, other: Uint8Array | undefined): boolean {
  return one === undefined || other === undefined ? one === other : equalBytes(one, other);
}

function peerConfig(peer: WgPeer): PeerConfig {
  const address = peer.endpoint === undefined ? undefined : parseAddress(peer.endpoint.host);
  return {
    publicKey: peer.publicKey,
    presharedKey: peer.presharedKey,
    endpoint: address === undefined ? undefined : { address, port: peer.endpoint!.port },
    persistentKeepaliveSeconds: peer.persistentKeepaliveSeconds,
    allowedIps: new Map(peer.allowedIps.map((prefix) => [formatPrefix(prefix), prefix])),
  };
}
