// One session's keys and what must not go backwards, from its state folder: opened before anything else, written before
// anything is told to others.
import { env } from "node:process";
import { fromBase64, fromHex, toBase64, toHex } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { randomBytes } from "../base/random.ts";
import { type JoinToken, parseJoinToken } from "../control/token.ts";
import { osRandom } from "../io/os-random.ts";
import { nextTimestampReserve } from "../wireguard/tai64n.ts";
import type { SessionGrant } from "./control-events.ts";
import type { KeptState } from "./kept-for-coordinator.ts";
import { defaultStateRoot, findStateFolder, listStateFolders, StateFolder } from "./state.ts";
import { type PeerState, STATE_VERSION } from "./state-schema.ts";

/** Where a session is kept. */
type StatePlace = Pick<StateFolder, "path" | "write" | "settle" | "release"> & {
  readonly socketPath: string | undefined;
};

/** Of a session that ends with its process. */
const IN_MEMORY: StatePlace = {
  path: "",
  socketPath: undefined,
  write: () => undefined,
  settle: () => undefined,
  release: () => undefined,
};

export class SessionStore {
  readonly #folder: StatePlace;
  readonly token: JoinToken | undefined;
  #state: PeerState;
  #problem: WirebadgeError | undefined;

  private constructor(folder: StatePlace, state: PeerState, token: JoinToken | undefined) {
    this.#folder = folder;
    this.#state = state;
    this.token = token;
  }

  /**
   * With a token: the folder of an earlier run with it, else a new one with new keys. Without: the folder named, or
   * the only one there is. `url` is where the coordinator is reached, if not where the token says.
   * @throws WirebadgeError TOKEN_INVALID, USAGE, CONFLICT, STATE_UNREADABLE, STATE_LOCKED
   */
  static open(tokenText: string | undefined, stateDir: string | undefined, url?: string): SessionStore {
    const token = tokenText === undefined ? undefined : parseJoinToken(tokenText);
    const folder = StateFolder.open(stateDir ?? placeOf(token));
    try {
      const known = folder.read();
      const kept = known === undefined ? newState(token, folder.path) : withToken(known, token, folder.path);
      const state = withUrl(kept, url);
      const store = new SessionStore(folder, state, token);
      // Keys are on disk before they are shown to anyone: enrolling again with them gives the same session again.
      folder.write(state);
      return store;
    } catch (error) {
      folder.release();
      throw error;
    }
  }

  /** A session that ends with this process: its keys are never on disk. @throws WirebadgeError TOKEN_INVALID */
  static inMemory(tokenText: string, url?: string): SessionStore {
    const token = parseJoinToken(tokenText);
    return new SessionStore(IN_MEMORY, withUrl(newState(token, "memory"), url), token);
  }

  /** "" for one in memory. */
  get path(): string {
    return this.#folder.path;
  }

  /** Undefined for a session in memory: nobody else asks it. */
  get socketPath(): string | undefined {
    return this.#folder.socketPath;
  }

  get url(): string {
    return this.#state.coordinator.url;
  }

  get coordinatorKey(): Uint8Array {
    return fromBase64(this.#state.coordinator.key)!;
  }

  get coordinatorSignKey(): Uint8Array | undefined {
    const { signKey } = this.#state.coordinator;
    return signKey === undefined ? undefined : fromBase64(signKey);
  }

  get wireguardKey(): Uint8Array {
    return fromBase64(this.#state.wireguardKey)!;
  }

  get signSeed(): Uint8Array {
    return fromBase64(this.#state.signSeed)!;
  }

  get session(): string | undefined {
    return this.#state.session;
  }

  /** "agent:coder", as the coordinator last said it. */
  get identity(): string | undefined {
    return this.#state.identity;
  }

  get listenPort(): number | undefined {
    return this.#state.listenPort;
  }

  get lastTimestamp(): Uint8Array | undefined {
    const { lastTimestamp } = this.#state;
    return lastTimestamp === undefined ? undefined : fromHex(lastTimestamp);
  }

  get kept(): KeptState | undefined {
    return this.#state.kept;
  }

  /** Why the last write failed, until one succeeds: what was to be written is then in memory alone. */
  get problem(): WirebadgeError | undefined {
    return this.#problem;
  }

  /**
   * What the coordinator answered; the folder gets the identity's name. Call before the folder's path is used.
   * @throws STATE_UNREADABLE when a new session can't be written down: a badge that a restart would not find again is
   * not worn. A known one goes on.
   */
  granted(grant: SessionGrant): void {
    const { session, identity } = grant;
    const next = {
      ...this.#state,
      coordinator: { ...this.#state.coordinator, signKey: toBase64(grant.coordinatorSignKey) },
      session,
      identity,
      kept: keptState(grant.kept),
    };
    if (this.#state.session === session) this.#tryWrite(next);
    else this.#write(next);
    this.#folder.settle(this.coordinatorKey, identity, session);
  }

  rememberPort(listenPort: number): void {
    if (this.#state.listenPort !== listenPort) this.#tryWrite({ ...this.#state, listenPort });
  }

  keep(kept: KeptState): void {
    this.#tryWrite({ ...this.#state, kept: keptState(kept) });
  }

  /**
   * Keeps the stamp on disk ahead of what has been sent, so that a clock set back after a crash locks nobody out, and
   * so that a handshake costs no write: stamps after a restart begin where the reserve ended.
   */
  reserveTimestamp(nowMs: number, sent: Uint8Array | undefined): void {
    if (sent === undefined) return;
    const next = nextTimestampReserve(this.lastTimestamp, nowMs, sent);
    if (next === undefined) return;
    this.#tryWrite({ ...this.#state, lastTimestamp: toHex(next) });
  }

  /** What is in memory is what is on disk. */
  #write(next: PeerState): void {
    this.#folder.write(next);
    this.#state = next;
    this.#problem = undefined;
  }

  /** For what the next write brings along: a full disk ends no running session. */
  #tryWrite(next: PeerState): void {
    try {
      this.#write(next);
    } catch (error) {
      if (!(error instanceof WirebadgeError)) throw error;
      this.#problem = error;
    }
  }

  release(): void {
    this.#folder.release();
  }
}

function keptState({ bookmark, revocations }: KeptState): PeerState["kept"] {
  return { ...(bookmark !== undefined && { bookmark }), revocations: [...revocations] };
}

function placeOf(token: JoinToken | undefined): string {
  const root = defaultStateRoot(env);
  if (token !== undefined) return findStateFolder(root, token.coordinatorKey, token.id);
  const folders = listStateFolders(root);
  if (folders.length === 1) return folders[0]!;
  throw folders.length === 0
    ? new WirebadgeError("USAGE", "there is no session on this machine yet, and no token to make one", {
        hint: "give --token-file FILE (or - for standard input), made by `wirebadge token create --as KIND:NAME`",
      })
    : new WirebadgeError("PEER_AMBIGUOUS", `there are ${folders.length} sessions here: ${folders.join(", ")}`, {
        hint: "choose one with --state DIR",
      });
}

function newState(token: JoinToken | undefined, path: string): PeerState {
  if (token === undefined) {
    throw new WirebadgeError("USAGE", `${path} holds no session, and there is no token to make one`, {
      hint: "give --token-file FILE (or - for standard input)",
    });
  }
  return {
    version: STATE_VERSION,
    coordinator: { url: token.url, key: toBase64(token.coordinatorKey) },
    tokenId: token.id,
    wireguardKey: toBase64(randomBytes(osRandom, 32)),
    signSeed: toBase64(randomBytes(osRandom, 32)),
  };
}

/** The coordinator's key stays the token's: another address of it is no other coordinator. */
function withUrl(state: PeerState, url: string | undefined): PeerState {
  return url === undefined ? state : { ...state, coordinator: { ...state.coordinator, url } };
}

function withToken(state: PeerState, token: JoinToken | undefined, path: string): PeerState {
  if (token === undefined) return state;
  if (state.coordinator.key !== toBase64(token.coordinatorKey)) {
    throw new WirebadgeError("TOKEN_OTHER_NETWORK", `${path} holds a session of another network than the token's`, {
      hint: "choose another folder with --state",
    });
  }
  if (state.session !== undefined && state.tokenId !== token.id) {
    throw new WirebadgeError("CONFLICT", `${path} already holds ${state.identity ?? "a session"} of another token`, {
      hint: "leave the token out to go on with it, or choose another folder with --state",
    });
  }
  return { ...state, coordinator: { ...state.coordinator, url: token.url }, tokenId: token.id };
}
