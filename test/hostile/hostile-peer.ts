// A peer of our own making that keeps no rule: it enrols as an honest one does, and then has no filter, no lease check
// and no table of who may speak for which address. Whatever packet it is given goes into the tunnel; whatever lease it
// is given is shown. Its own userspace stack makes connections over the same tunnel, so that a broken build can't pass
// for one that was stopped.
import { type Address, type Endpoint, formatEndpoint, parseAddress, parseEndpoint } from "../../src/base/address.ts";
import { concatBytes, fromBase64 } from "../../src/base/bytes.ts";
import { randomBytes } from "../../src/base/random.ts";
import type { NetmapView } from "../../src/control/netmap.ts";
import { parseJoinToken } from "../../src/control/token.ts";
import { encodeLease, PEER_LINK_PORT } from "../../src/engine/peer-link.ts";
import { SystemClock } from "../../src/io/clock.ts";
import { chooseCrypto } from "../../src/io/crypto-choice.ts";
import { DgramUdpPort } from "../../src/io/dgram-udp-port.ts";
import { osRandom } from "../../src/io/os-random.ts";
import { UserspaceStack } from "../../src/netstack/stack.ts";
import { ControlClient } from "../../src/peer/control-client.ts";
import { Device } from "../../src/wireguard/device.ts";
import type { Tunnel } from "../../src/wireguard/tunnel.ts";
import { until } from "../scripts/program.ts";
import { udp } from "../wire/packets.ts";

const MTU_BYTES = 1420;
const ROOM_BYTES = 64;
const TICK_MS = 10;
const TYPE_DATA = 4;

export interface Victim {
  readonly publicKey: string;
  readonly address: string;
  /** Outer, "127.0.0.1:PORT". */
  readonly endpoint: string;
}

export class HostilePeer {
  readonly #crypto = chooseCrypto().crypto;
  readonly #clock = new SystemClock();
  readonly #wireguardKey = randomBytes(osRandom, 32);
  readonly #control: ControlClient;
  readonly #device: Device<Victim>;
  readonly #stack: UserspaceStack;
  readonly #timer: NodeJS.Timeout;
  #udp: DgramUdpPort | undefined;
  #tunnel: Tunnel<Victim> | undefined;
  netmap: NetmapView | undefined;
  /** Each lease that it was ever given, as signed. */
  readonly leases: Uint8Array[] = [];
  /** Outer datagrams as sent, newest last. */
  readonly sent: Uint8Array[] = [];
  /** Does it show its lease when a tunnel begins, and each renewal? */
  showsLease = true;

  private constructor(token: string) {
    const { url, coordinatorKey, id, secret } = parseJoinToken(token);
    const crypto = this.#crypto;
    this.#control = new ControlClient({
      url,
      coordinatorKey,
      signSeed: randomBytes(osRandom, 32),
      wireguardKey: this.#wireguardKey,
      enrolment: { tokenId: id, secret },
      crypto,
      random: osRandom,
      clock: this.#clock,
      software: "hostile 0",
    });
    this.#control.on("netmap", (view) => {
      this.netmap = view;
      this.#stack.setLocalAddresses(view.self.addresses.flatMap((text) => parseAddress(text) ?? []));
    });
    this.#control.on("lease", (bytes) => {
      this.leases.push(bytes);
      if (this.showsLease && this.#tunnel !== undefined) this.showLease(bytes);
    });
    this.#device = new Device<Victim>({
      crypto,
      random: osRandom,
      keyPair: { privateKey: this.#wireguardKey, publicKey: crypto.publicKey(this.#wireguardKey) },
      mtuBytes: MTU_BYTES,
      sink: {
        sendDatagram: (_nowMs, tunnel, to, _kind, buffer, offset, length) => {
          const endpoint = to ?? (tunnel === undefined ? undefined : parseEndpoint(tunnel.owner.endpoint));
          if (endpoint !== undefined) this.sendDatagram(endpoint, buffer.slice(offset, offset + length));
        },
        sessionStarted: () => {
          const lease = this.leases.at(-1);
          if (this.showsLease && lease !== undefined) this.showLease(lease);
        },
        handshakeFailed: () => undefined,
        endpointChanged: () => undefined,
      },
    });
    this.#stack = new UserspaceStack({
      random: osRandom,
      mtuBytes: MTU_BYTES,
      handler: {
        output: (nowMs, buffer, offset, length) => this.#seal(nowMs, buffer, offset, length),
      },
    });
    this.#timer = setInterval(() => {
      this.#device.handleTimeout(this.#clock.nowMs());
      this.#stack.handleTimeout(this.#clock.nowMs());
    }, TICK_MS);
  }

  /** Enrols; with its first netmap and lease it is ready. */
  static async join(token: string): Promise<HostilePeer> {
    const peer = new HostilePeer(token);
    peer.#udp = await DgramUdpPort.open(0, {
      onDatagram: (from, buffer, offset, length) => peer.#onDatagram(from, buffer.subarray(offset, offset + length)),
      onBurst: (give) => give(),
    });
    peer.#control.setEndpoints([`127.0.0.1:${peer.#udp.port}`]);
    peer.#control.start();
    await peer.#control.ready;
    return peer;
  }

  get session(): string {
    return this.#control.session ?? "";
  }

  get address(): string {
    return this.netmap?.self.addresses.find((address) => address.includes(":")) ?? "";
  }

  /** From now on everything it sends goes to that peer, whatever its netmap says. */
  aimAt(victim: Victim): void {
    const publicKey = fromBase64(victim.publicKey)!;
    const tunnel = this.#device.addPeer(this.#clock.nowMs(), { owner: victim, publicKey });
    if (typeof tunnel === "string") throw new Error(tunnel);
    this.#tunnel = tunnel;
  }

  /** One inner packet, as it is. */
  send(packet: Uint8Array): void {
    const buffer = new Uint8Array(packet.length + 2 * ROOM_BYTES);
    buffer.set(packet, ROOM_BYTES);
    this.#seal(this.#clock.nowMs(), buffer, ROOM_BYTES, packet.length);
  }

  /** One outer datagram, as it is. */
  sendDatagram(endpoint: Endpoint, bytes: Uint8Array): void {
    this.sent.push(bytes);
    this.#udp?.send(endpoint, bytes, 0, bytes.length);
  }

  /** The same to whom it aims at. */
  sendRaw(bytes: Uint8Array): void {
    this.sendDatagram(parseEndpoint(this.#aim.owner.endpoint)!, bytes);
  }

  /** The last outer data message that was sent. */
  get lastData(): Uint8Array {
    const found = this.sent.findLast((bytes) => bytes[0] === TYPE_DATA && bytes.length > 32);
    if (found === undefined) throw new Error("no data message has been sent yet");
    return found.slice();
  }

  /** A payload on the peer link's port. */
  sendLink(payload: Uint8Array, to = this.#aim.owner.address, fromPort = PEER_LINK_PORT): void {
    this.send(udp(this.address, to, fromPort, PEER_LINK_PORT, payload));
  }

  showLease(bytes: Uint8Array): void {
    this.sendLink(encodeLease(bytes));
  }

  startHandshake(): void {
    this.#device.startHandshake(this.#clock.nowMs(), this.#aim);
  }

  get hasSession(): boolean {
    return this.#aim.hasSession(this.#clock.nowMs());
  }

  /** Waits for a tunnel to whom it aims at. */
  async tunnelUp(): Promise<void> {
    this.startHandshake();
    await until("a tunnel of the hostile peer", () => this.hasSession || undefined);
  }

  /** A connection by its own stack; resolves with what came back, or with why it ended. */
  echo(address: string, port: number, text: string): Promise<string> {
    const stream = this.open(address, port);
    stream.write(text);
    return stream.got(text.length).finally(() => stream.abort());
  }

  open(address: string, port: number): HostileStream {
    const [local, remote] = [parseAddress(this.address)!, parseAddress(address)!];
    return new HostileStream(this.#stack, this.#clock, local, { address: remote, port });
  }

  /** Stops talking to the coordinator: no renewals, no news. */
  async desert(): Promise<void> {
    await this.#control.stop();
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#control.stop();
    await this.#udp?.close();
    this.#device.close();
  }

  get #aim(): Tunnel<Victim> {
    if (this.#tunnel === undefined) throw new Error("aimAt first");
    return this.#tunnel;
  }

  #seal(nowMs: number, buffer: Uint8Array, offset: number, length: number): void {
    this.#device.send(nowMs, this.#aim, buffer, offset, length);
  }

  #onDatagram(from: Endpoint, bytes: Uint8Array): void {
    const nowMs = this.#clock.nowMs();
    const received = this.#device.receive(nowMs, from, bytes, 0, bytes.length);
    if (received.kind === "DATA") this.#stack.handlePacket(nowMs, bytes, received.offset, received.length);
  }
}

export class HostileStream {
  readonly #stack: UserspaceStack;
  readonly #clock: SystemClock;
  readonly #connection: ReturnType<UserspaceStack["connectTcp"]>;
  #received = new Uint8Array(0);
  #connected = false;
  #unsent = new Uint8Array(0);
  closed: string | undefined;

  constructor(stack: UserspaceStack, clock: SystemClock, local: Address, remote: Endpoint) {
    this.#stack = stack;
    this.#clock = clock;
    this.#connection = this.#stack.connectTcp(clock.nowMs(), local, remote, {
      connected: () => {
        this.#connected = true;
        this.#flush();
      },
      readable: () => {
        for (;;) {
          const bytes = this.#connection?.read(clock.nowMs(), 65_536);
          if (bytes === undefined) return;
          this.#received = concatBytes(this.#received, bytes) as Uint8Array<ArrayBuffer>;
        }
      },
      writable: () => this.#flush(),
      closed: (reason) => {
        this.closed = reason;
      },
    });
    if (this.#connection === undefined) throw new Error(`no room for a connection to ${formatEndpoint(remote)}`);
  }

  get localPort(): number {
    return this.#connection!.local.port;
  }

  write(text: string): void {
    this.#unsent = concatBytes(this.#unsent, Buffer.from(text)) as Uint8Array<ArrayBuffer>;
    if (this.#connected) this.#flush();
  }

  /** That many bytes in all, or the reason of its end in `<…>`. */
  async got(length: number): Promise<string> {
    await until(`${length} bytes`, () => this.#received.length >= length || this.closed);
    if (this.#received.length < length) return `<${this.closed}>`;
    return Buffer.from(this.#received).toString();
  }

  abort(): void {
    if (this.closed === undefined) this.#connection?.abort(this.#clock.nowMs());
  }

  #flush(): void {
    const taken = this.#connection?.write(this.#clock.nowMs(), this.#unsent) ?? 0;
    this.#unsent = this.#unsent.slice(taken);
  }
}
