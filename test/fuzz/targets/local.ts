// What a peer reads on its own machine: its state file, and what local programs send to its local API.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { concatBytes } from "../../../src/base/bytes.ts";
import { ERROR_CODES, WirebadgeError } from "../../../src/base/errors.ts";
import type { SeededRandom } from "../../../src/base/random.ts";
import { LocalApiServer } from "../../../src/peer/local-api.ts";
import { type LocalApiHost, problemSchema } from "../../../src/peer/local-api-schema.ts";
import { readState, STATE_FILE } from "../../../src/peer/state.ts";
import { peerStateSchema } from "../../../src/peer/state-schema.ts";
import { mutateJson } from "../mutate.ts";
import { bytesOf, type FuzzTarget, kindOf, latin1, must } from "../target.ts";

/** A folder that is this target's alone, made when it is first needed. */
class Folder {
  #path: string | undefined;

  get path(): string {
    this.#path ??= mkdtempSync(join(tmpdir(), "wb-fuzz-"));
    return this.#path;
  }

  remove(): void {
    if (this.#path !== undefined) rmSync(this.#path, { recursive: true });
    this.#path = undefined;
  }
}

// --- The state file -----

const SECRET = `${"Q7".repeat(21)}Q=`;
const STATE = {
  version: 1,
  coordinator: { url: "https://wb.example:9443", key: SECRET, signKey: SECRET },
  tokenId: "t_0123456789abcdef",
  wireguardKey: SECRET,
  signSeed: SECRET,
  session: "s_0123456789abcdef",
  identity: "agent:coder",
  lastTimestamp: "400000006553f1000000beef",
  kept: { bookmark: "b", revocations: [{ session: "s_0123456789abcdef", signature: "A".repeat(88), forgetMs: 1 }] },
  listenPort: 51_820,
};
const asJson = (value: unknown): Uint8Array => bytesOf(JSON.stringify(value) ?? "");
const stateFolder = new Folder();

function runState(input: Uint8Array): string {
  const folder = stateFolder.path;
  writeFileSync(join(folder, STATE_FILE), input, { mode: 0o600 });
  try {
    const state = readState(folder);
    must(state !== undefined && state.version === 1, "a state of no version");
    const again = peerStateSchema.safeParse(JSON.parse(JSON.stringify(state)));
    must(again.success && JSON.stringify(again.data) === JSON.stringify(state), "another state when written and read");
    return "read";
  } catch (error) {
    if (!(error instanceof WirebadgeError)) throw error;
    must(error.code === "STATE_UNREADABLE" && error.hint !== undefined, `refused by ${error.code}`);
    const told = `${error.message} ${error.hint}`;
    must(!told.includes(SECRET.slice(0, 12)), "a key stands in the error");
    must(error.cause === undefined, "the error hands on what may quote the file");
    must(told.length < 1_000, "an error as long as the file likes");
    return kindOf(error.message.slice(join(folder, STATE_FILE).length + 1));
  }
}

function randomState(random: SeededRandom): Uint8Array {
  let state: unknown = STATE;
  for (let changes = random.below(4); changes > 0; changes--) state = mutateJson(state, random);
  return asJson(state);
}

const manyRevocations = (): unknown => ({
  ...STATE,
  kept: { revocations: new Array(40_000).fill(STATE.kept.revocations[0]) },
});

// --- The local API -----

const HOST: LocalApiHost = {
  status: () => {
    throw new WirebadgeError("NOT_FOUND", "not here");
  },
  whois: (of) => {
    if (of.length % 2 === 1) throw new WirebadgeError("NOT_FOUND", "nobody has that address", { hint: "see status" });
    return { of, session: "s_7", identity: "node:gw", tags: [], addresses: [of], via: "address" };
  },
  can: (destination) => ({ destination, allowed: false, reason: "NO_GRANT" }),
  denials: () => ({ denials: [] }),
  ping: async (name) => ({ name, address: "fd00::7", rttMs: 1, path: "direct" }),
};
const HEAD = "Host: wirebadge\r\nConnection: close\r\n";
const DECLARED = new Set<number>(Object.values(ERROR_CODES).map(([, status]) => status));

class Api {
  readonly #folder = new Folder();
  readonly failures: unknown[] = [];
  #server: LocalApiServer | undefined;

  /** Raw bytes, then the end of what this client has to say; the whole answer. */
  async ask(request: Uint8Array): Promise<string> {
    const path = join(this.#folder.path, "peer.sock");
    this.#server ??= await LocalApiServer.open({
      host: HOST,
      path,
      onFailure: (error) => this.failures.push(error),
    });
    return await new Promise((resolve) => {
      let answer = "";
      const socket = connect(path);
      socket.setEncoding("latin1");
      socket.on("data", (chunk: string) => {
        answer += chunk;
      });
      socket.on("error", () => undefined); // closed in mid-sentence: the answer so far counts
      socket.on("close", () => resolve(answer));
      socket.end(request);
    });
  }

  async close(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
    this.#folder.remove();
  }
}

const api = new Api();

/** By its first byte: a ping's body, a parameter, a path, or a whole request as it stands. */
function requestOf(input: Uint8Array): Uint8Array {
  const rest = input.subarray(1);
  const word = encodeURIComponent(latin1(rest)).slice(0, 3_000);
  switch ((input[0] ?? 0) % 8) {
    case 0:
    case 1:
    case 2: {
      const type = `Content-Type: application/json\r\nContent-Length: ${rest.length}\r\n`;
      return concatBytes(bytesOf(`POST /v1/ping HTTP/1.1\r\n${HEAD}${type}\r\n`), rest);
    }
    case 3:
      return bytesOf(`GET /v1/whois?of=${word} HTTP/1.1\r\n${HEAD}\r\n`);
    case 4:
      return concatBytes(bytesOf("GET /v1/can?dest="), rest, bytesOf(` HTTP/1.1\r\n${HEAD}\r\n`));
    case 5:
      return concatBytes(bytesOf("GET /"), rest, bytesOf(` HTTP/1.1\r\n${HEAD}\r\n`));
    default:
      return rest;
  }
}

async function runApi(input: Uint8Array): Promise<string> {
  const whole = await api.ask(requestOf(input));
  const answer = whole.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, "");
  const [failure] = api.failures.splice(0);
  if (failure !== undefined) throw failure;
  if (answer === "") return "closed";
  const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);
  must(status === 200 || (status >= 400 && status < 500), () => `answered by ${answer.slice(0, 40)}`);
  if (status === 200 || !answer.includes("application/problem+json")) return String(status);
  const body = answer.slice(answer.indexOf("\r\n\r\n") + 4);
  if (body === "") return `${status} to HEAD`;
  const problem = problemSchema.parse(JSON.parse(body.slice(0, body.indexOf("\n") + 1)));
  must(problem.status === status && DECLARED.has(status), "a status that the catalogue does not know");
  return problem.code;
}

const raw = (text: string): Uint8Array => concatBytes(Uint8Array.of(7), bytesOf(text));
const PING_HEAD = `POST /v1/ping HTTP/1.1\r\n${HEAD}Content-Type: application/json\r\n`;

function randomRequest(random: SeededRandom): Uint8Array {
  const kind = random.below(7);
  if (kind < 3) return concatBytes(Uint8Array.of(kind), asJson(mutateJson({ name: "gw-1" }, random)));
  const word = bytesOf(
    random.pick(["fd00::7", "fd00::8/1", "10.0.0.1:80", "%", "%00", "a&of=b", "/x", "[", "v1/status"]),
  );
  return concatBytes(Uint8Array.of(kind), word);
}

export const LOCAL_TARGETS: readonly FuzzTarget[] = [
  {
    name: "state-file",
    share: 10,
    most: 60_000,
    maxBytes: 8_192,
    seeds: [asJson(STATE), asJson({ ...STATE, kept: undefined, session: undefined }), bytesOf("")],
    make: randomState,
    words: ['"version":', "null", "1e999", "[", "{", '"__proto__":', "\\u0000"],
    long: () => [
      bytesOf("[".repeat(500_000) + "]".repeat(500_000)),
      bytesOf('{"a":'.repeat(200_000)),
      asJson(manyRevocations()),
      asJson(Object.fromEntries(Array.from({ length: 50_000 }, (_, i) => [`key${i}`, i]))),
    ],
    run: runState,
    reaches: ["read", "is damaged: it is not JSON", "is damaged", "was written by a newer wirebadge"],
    close: () => stateFolder.remove(),
  },
  {
    name: "local-api",
    share: 4,
    most: 30_000,
    maxBytes: 4_096,
    seeds: [
      raw(`${PING_HEAD}Content-Length: 13\r\n\r\n{"name":"gw"}`),
      raw(`GET /v1/denials HTTP/1.1\r\n${HEAD}\r\n`),
      raw(`GET /v1/denials HTTP/1.1\r\n${HEAD}Origin: http://a\r\n\r\n`),
      raw(`PUT /v1/status HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n`),
      concatBytes(Uint8Array.of(0), bytesOf('{"name":"gw"}')),
      concatBytes(Uint8Array.of(3), bytesOf("fd00::7")),
      concatBytes(Uint8Array.of(4), bytesOf("tcp:1")),
      concatBytes(Uint8Array.of(5), bytesOf("v1/status")),
    ],
    make: randomRequest,
    words: ["\r\n", "Host: x\r\n", "Content-Length: 9\r\n", "Expect: 100-continue\r\n", "Upgrade: h2c\r\n", "HTTP/1.0"],
    long: () => [concatBytes(Uint8Array.of(0), new Uint8Array(70_000).fill(0x5b))],
    run: runApi,
    reaches: ["200", "USAGE", "NOT_FOUND", "METHOD_NOT_ALLOWED", "FORBIDDEN", "closed"],
    close: () => api.close(),
  },
];
