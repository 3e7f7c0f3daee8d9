// The data folder: keys.json (Noise static key and signing key), admin.token, network.db, records.db. The folder is
// 0700, each file 0600; secrets are written by temporary file, fsync and rename, so that a crash leaves the old or the
// new, never half.
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { ID_BYTES } from "../base/base32.ts";
import { fromBase64, toBase64 } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { type Random, randomBytes } from "../base/random.ts";
import { formatSecretToken, isSecretToken, SECRET_BYTES } from "../control/token.ts";
import { type Crypto, KEY_BYTES, type KeyPair } from "../crypto/provider.ts";
import { fsyncPath } from "../io/fsync-path.ts";

export interface DataPaths {
  readonly keys: string;
  readonly adminToken: string;
  readonly network: string;
  readonly records: string;
}

export interface CoordinatorKeys {
  /** X25519, Noise static: pinned by every token. */
  readonly noise: KeyPair;
  /** Ed25519: signs netmaps and leases. */
  readonly sign: KeyPair;
}

/** Makes the folder when there is none. STATE_UNREADABLE when that can't be done. */
export function prepareDataDir(dataDir: string): DataPaths {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw new WirebadgeError("STATE_UNREADABLE", `can't make the data folder ${dataDir}`, {
      hint: "choose a folder that this user may write with --data",
      cause,
    });
  }
  return dataPaths(dataDir);
}

export function dataPaths(dataDir: string): DataPaths {
  return {
    keys: join(dataDir, "keys.json"),
    adminToken: join(dataDir, "admin.token"),
    network: join(dataDir, "network.db"),
    records: join(dataDir, "records.db"),
  };
}

/** Whole and on disk, or not at all. STATE_UNREADABLE when it can't be. */
export function writeSecretFile(path: string, text: string): void {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const file = openSync(temporary, "w", 0o600);
    try {
      writeSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, path);
    fsyncPath(dirname(path));
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new WirebadgeError("STATE_UNREADABLE", `${path} can't be written`, {
      hint: "see that its folder is yours, not on a read-only file system, and that the disk has room",
      cause,
    });
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw new WirebadgeError("STATE_UNREADABLE", `can't read ${path}`, { hint: "check its owner and mode", cause });
  }
}

const keysFileSchema = z.object({ version: z.literal(1), noise: z.string(), sign: z.string() });

function keysFrom(crypto: Crypto, noise: Uint8Array, sign: Uint8Array): CoordinatorKeys {
  return {
    noise: { privateKey: noise, publicKey: crypto.publicKey(noise) },
    sign: { privateKey: sign, publicKey: crypto.signPublicKey(sign) },
  };
}

/**
 * The coordinator's keys; made only when `mayCreate`: a store without its keys is half a backup, and new keys would
 * lock every
 * enrolled peer out without a word.
 */
export function loadKeys(path: string, crypto: Crypto, random: Random, mayCreate: boolean): CoordinatorKeys {
  const text = readIfThere(path);
  if (text === undefined) {
    if (!mayCreate)
      throw new WirebadgeError("STATE_UNREADABLE", `${path} is missing, but the network's store is there`, {
        hint: "restore keys.json from the same backup: peers pin the key in it",
      });
    const keys = keysFrom(crypto, randomBytes(random, KEY_BYTES), randomBytes(random, KEY_BYTES));
    const file = { version: 1, noise: toBase64(keys.noise.privateKey), sign: toBase64(keys.sign.privateKey) };
    writeSecretFile(path, `${JSON.stringify(file)}\n`);
    return keys;
  }
  const unreadable = new WirebadgeError("STATE_UNREADABLE", `${path} is damaged`, { hint: "restore it from a backup" });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) throw unreadable;
    throw error;
  }
  const parsed = keysFileSchema.safeParse(json);
  const noise = parsed.success ? fromBase64(parsed.data.noise) : undefined;
  const sign = parsed.success ? fromBase64(parsed.data.sign) : undefined;
  if (noise?.length !== KEY_BYTES || sign?.length !== KEY_BYTES) throw unreadable;
  return keysFrom(crypto, noise, sign);
}

/** The admin API's bearer secret, made at first start. */
export function loadAdminToken(path: string, random: Random): string {
  const text = readIfThere(path)?.trim();
  if (text === undefined) {
    const token = formatSecretToken("admin", randomBytes(random, ID_BYTES), randomBytes(random, SECRET_BYTES));
    writeSecretFile(path, `${token}\n`);
    return token;
  }
  if (!isSecretToken("admin", text))
    throw new WirebadgeError("STATE_UNREADABLE", `${path} is damaged`, {
      hint: "delete it: a new one is made at start",
    });
  return text;
}
