// The coordinator, put together: data folder, store, listeners. `startCoordinator` resolves when peers can join.
import { join } from "node:path";
import { randomId } from "../base/base32.ts";
import { toHex } from "../base/bytes.ts";
import { WirebadgeError } from "../base/errors.ts";
import { randomBytes } from "../base/random.ts";
import { SECOND_MS } from "../base/units.ts";
import { isCoordinatorUrl } from "../control/token.ts";
import { type Clock, ClockFrom } from "../io/clock.ts";
import { randomPool4, randomUla } from "./addresses.ts";
import { removeUnfetched, writeBackup } from "./backup.ts";
import { Continuity } from "./continuity.ts";
import { ControlDesk, FLUSH_SEEN_EVERY_MS } from "./control-desk.ts";
import { ControlServer } from "./control-server.ts";
import { Core } from "./core.ts";
import { Counters } from "./counters.ts";
import { type CoordinatorKeys, type DataPaths, loadAdminToken, loadKeys, prepareDataDir } from "./data-dir.ts";
import { AdminServer } from "./http/admin-server.ts";
import { Leases } from "./leases.ts";
import { hostPort, type ListenAddress, parseListen } from "./listen.ts";
import { NetmapBuilder } from "./netmap-builder.ts";
import { Netmaps } from "./netmaps.ts";
import { type CoordinatorOptions, DEFAULT_ADMIN_LISTEN, DEFAULT_LISTEN, type RunningCoordinator } from "./options.ts";
import { Policies } from "./policies.ts";
import { ProbeServer } from "./probe-server.ts";
import { PeerRecords } from "./records.ts";
import { ReservedCounter } from "./reserved-counter.ts";
import { Roster } from "./roster.ts";
import { SourceLimits } from "./source-limits.ts";
import { SqlStore } from "./store/sql-store.ts";
import { openSqlite, sqliteDialect } from "./store/sqlite.ts";
import type { Store } from "./store/store.ts";
import { World } from "./world.ts";

/** How soon after a grant's `until` the netmaps say so; the filters end it by themselves at the very time. */
const GRANT_ENDS_EVERY_MS = SECOND_MS;
const CLOCK_BEHIND_TOLD_MS = SECOND_MS;
const NETWORK_NAME = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

interface Addresses {
  readonly listen: ListenAddress;
  readonly admin: ListenAddress;
}

/** Everything that can be refused before anything is opened. */
function checkOptions(options: CoordinatorOptions): Addresses {
  const listen = parseListen("--listen", options.listen ?? DEFAULT_LISTEN);
  const admin = parseListen("--admin-listen", options.adminListen ?? DEFAULT_ADMIN_LISTEN);
  if (options.url !== undefined && !isCoordinatorUrl(options.url))
    throw new WirebadgeError("CONFIG_INVALID", `--url ${JSON.stringify(options.url)} is not http:// or https://`, {
      hint: "give the URL under which peers reach this coordinator: --url https://net.example.com",
    });
  if (listen.unspecified && options.url === undefined)
    throw new WirebadgeError("CONFIG_INVALID", `--listen ${options.listen} says no address that peers could use`, {
      hint: "add --url with the URL under which peers reach this coordinator; tokens carry it",
    });
  if (options.udp !== undefined && !/^(?:\[[0-9a-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}$/i.test(options.udp))
    throw new WirebadgeError("CONFIG_INVALID", `--udp ${JSON.stringify(options.udp)} is not HOST:PORT`, {
      hint: "give the address under which peers reach the UDP probe: --udp net.example.com:7470",
    });
  const name = options.networkName;
  if (name !== undefined && !NETWORK_NAME.test(name))
    throw new WirebadgeError("CONFIG_INVALID", `the network name ${JSON.stringify(name)} is no DNS label`, {
      hint: "use a–z, 0–9 and inner hyphens, at most 63",
    });
  return { listen, admin };
}

/** Where peers find the probe, as the netmap says: what was given, else the listener itself, else the URL's host. */
function probeAddress(options: CoordinatorOptions, listen: ListenAddress, port: number): string {
  if (options.udp !== undefined) return options.udp;
  const host = listen.unspecified ? new URL(options.url!).hostname.replace(/^\[|\]$/g, "") : listen.host;
  return hostPort(host, port);
}

interface Opened {
  readonly clock: Clock;
  readonly store: Store;
  readonly world: World;
  readonly keys: CoordinatorKeys;
  readonly adminToken: string;
}

/**
 * A network's time doesn't go back with the machine's clock over a restart: what has ended by it (tokens, leases,
 * grants) would begin again.
 */
async function networkClock({ clock, logger }: CoordinatorOptions, store: Store): Promise<Clock> {
  const from = new ClockFrom(clock, await store.transaction((tx) => tx.latestMs()));
  if (from.aheadMs >= CLOCK_BEHIND_TOLD_MS) {
    logger.warn(
      { behindMs: Math.round(from.aheadMs) },
      "this machine's clock is behind what was written at the last run: the network's time goes on from there",
    );
  }
  return from;
}

/** The store and what it holds; at first start a network with its keys. */
async function openData(options: CoordinatorOptions, paths: DataPaths): Promise<Opened> {
  const { random, crypto } = options;
  const store = await SqlStore.open(sqliteDialect(openSqlite(paths.network), paths.network));
  try {
    const clock = await networkClock(options, store);
    const nowMs = Math.floor(clock.nowMs());
    const emptyPolicy = Policies.emptyVersion(nowMs);
    const known = await World.load(store, nowMs, emptyPolicy);
    // Keys first, then the network: a crash in between leaves keys that the next start takes up.
    const keys = loadKeys(paths.keys, crypto, random, known === undefined);
    const adminToken = loadAdminToken(paths.adminToken, random);
    if (known !== undefined) return { clock, store, world: known, keys, adminToken };
    await store.transaction(async (tx) => {
      const network = {
        id: randomId(random, "n"),
        name: options.networkName ?? "wirebadge",
        ula: randomUla(random),
        pool4: randomPool4(random),
        createdMs: nowMs,
      };
      await tx.insertNetwork(network);
      await tx.addToCounter("epoch", 1);
      const { id, ...details } = network;
      await tx.audit(nowMs, { actor: "coordinator", action: "network.create", subject: id, details });
    });
    return { clock, store, world: (await World.load(store, nowMs, emptyPolicy))!, keys, adminToken };
  } catch (error) {
    await store.close();
    throw error;
  }
}

/**
 * Starts a coordinator. Throws CONFIG_INVALID, PORT_TAKEN, STATE_LOCKED, STATE_UNREADABLE or STORE_FAILED; nothing
 * stays open then.
 *
 * @example
 * const coordinator = await startCoordinator({ dataDir: "/var/lib/wirebadge", listen: "127.0.0.1:7470", … });
 * await coordinator.stop();
 */
export async function startCoordinator(options: CoordinatorOptions): Promise<RunningCoordinator> {
  const addresses = checkOptions(options);
  const paths = prepareDataDir(options.dataDir);
  const opened = await openData(options, paths);
  removeUnfetched(options.dataDir);
  const undo: (() => Promise<void> | void)[] = [() => opened.store.close()];
  try {
    return await run(options, addresses, paths, opened, undo);
  } catch (error) {
    await stopAll(undo);
    throw error;
  }
}

async function run(
  options: CoordinatorOptions,
  { listen, admin }: Addresses,
  paths: DataPaths,
  { clock, store, world, keys, adminToken }: Opened,
  undo: (() => Promise<void> | void)[],
): Promise<RunningCoordinator> {
  const { crypto, random, logger } = options;
  const counters = new Counters();
  const records = new PeerRecords(paths.records, counters);
  undo.push(() => records.close());
  const revisions = await ReservedCounter.open(store, "revision");
  const serials = await ReservedCounter.open(store, "serial");

  let desk: ControlDesk | undefined;
  // What can't be written any more at the end must not keep the rest from being closed.
  undo.push(async () => await desk?.flushSeen().catch((err: unknown) => logger.error({ err }, "last seen not kept")));
  // The port first: with port 0, tokens and netmaps carry the one that it got.
  const handler = {
    admit: (applicant: Parameters<ControlDesk["admit"]>[0]) => desk!.admit(applicant),
    handle: (...args: Parameters<ControlDesk["handle"]>) => desk!.handle(...args),
    detach: (...args: Parameters<ControlDesk["detach"]>) => desk!.detach(...args),
  };
  const handshakes = new SourceLimits();
  const context = { crypto, random, clock, logger, counters, noiseKeys: keys.noise, handler, handshakes };
  const control = new ControlServer(context);
  const port = await control.bind(listen);
  undo.push(() => control.stop());
  const probes = new ProbeServer(crypto, random, clock, counters);
  await probes.start({ ...listen, port });
  undo.push(() => probes.stop());

  const url = (options.url ?? `http://${hostPort(listen.host, port)}`).replace(/\/+$/, "");
  const core = new Core({
    store,
    world,
    keys,
    crypto,
    random,
    clock,
    logger,
    counters,
    url,
    probes: [probeAddress(options, listen, port)],
    software: options.software,
  });
  const roster = new Roster(world, Policies.parseStored(world.policy));
  const policies = new Policies(core, roster, await store.transaction((tx) => tx.addToCounter("longest-lease-ms", 0)));
  const builder = new NetmapBuilder(core, roster);
  const netmaps = new Netmaps(core, revisions, (session) => builder.build(session));
  const leases = new Leases(core, serials, (session) => builder.leaseMs(session));
  // Each needs the other: revocations close channels, and whoever comes in may bring revocations.
  const expel = (...args: Parameters<ControlDesk["expel"]>): void => desk?.expel(...args);
  const parts = { core, netmaps, leases, policies, roster, desk: { expel } };
  const continuity = new Continuity(parts, { serials, revisions });
  desk = new ControlDesk({ core, netmaps, leases, probes, records, roster, continuity });
  const startedMs = clock.nowMs();
  const adminServer = new AdminServer({
    core,
    desk,
    netmaps,
    leases,
    policies,
    roster,
    records,
    adminToken,
    startedMs,
    backup: async () => {
      removeUnfetched(options.dataDir);
      const file = `backup-${toHex(randomBytes(random, 8))}.db`;
      const made = await writeBackup(store, paths.keys, join(options.dataDir, file), core.nowMs());
      return { file, ...made };
    },
  });
  const adminPort = await adminServer.start(admin);
  undo.push(() => adminServer.stop());
  const housekeeping = setInterval(() => void keepHouse(core, desk!, netmaps), FLUSH_SEEN_EVERY_MS);
  housekeeping.unref();
  const grantEnds = setInterval(() => netmaps.refreshDue(core.nowMs()), GRANT_ENDS_EVERY_MS);
  grantEnds.unref();
  undo.push(() => {
    clearInterval(housekeeping);
    clearInterval(grantEnds);
  });
  control.open();
  logger.info({ url, sessions: world.sessions.size, network: world.network.id }, "coordinator ready");
  let stopping: Promise<void> | undefined;
  return {
    url,
    adminUrl: `http://${hostPort(admin.host, adminPort)}`,
    adminTokenFile: paths.adminToken,
    networkId: world.network.id,
    stop: () => {
      stopping ??= stopAll(undo);
      return stopping;
    },
  };
}

async function keepHouse(core: Core, desk: ControlDesk, netmaps: Netmaps): Promise<void> {
  try {
    await desk.flushSeen();
    netmaps.refresh(core.world.forgetOldRevocations(core.nowMs()));
  } catch (error) {
    core.logger.error({ err: error }, "housekeeping failed");
  }
}

/** In the reverse order of starting: listeners before what they use, the store last. */
async function stopAll(undo: (() => Promise<void> | void)[]): Promise<void> {
  for (const step of undo.reverse()) await step();
}
