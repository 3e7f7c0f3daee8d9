// What a running peer says, as text: every name in it came from outside and is escaped.
import { printable } from "../base/printable.ts";
import type { Denial, EntryPoint, Status } from "../peer/local-api-schema.ts";
import type { NamesShown } from "../peer/tun/badge-names.ts";
import { properties, relative, table } from "./table.ts";

export function formatEntryPoint({ kind, listen, target, protection }: EntryPoint): string {
  const to = target === undefined ? "" : ` -> ${printable(target)}`;
  return `  ${kind.padEnd(9)}  ${printable(listen)}${to} (${PROTECTIONS[protection]})`;
}

const PROTECTIONS: Readonly<Record<EntryPoint["protection"], string>> = {
  folder: "only this user: private folder",
  "owner-sock-diag": "only this user: asked of the kernel",
  "owner-proc": "only this user: asked of /proc, slow",
  credentials: "user name and password",
  policy: "whom the policy allows",
};

/** One line: `denied d_… agent:coder to production tcp:80: NO_GRANT (policy version 3, at the source); hint`. */
export function formatDenial(denial: Denial): string {
  const from = denial.identity === undefined ? "" : `${printable(denial.identity)} to `;
  const port = denial.port === undefined ? "" : `:${denial.port}`;
  const rule = denial.ruleId === undefined ? "" : ` by ${printable(denial.ruleId)}`;
  const version = denial.policyVersion === undefined ? "" : `policy version ${denial.policyVersion}, `;
  const hint = denial.hint === undefined ? "" : `; ${printable(denial.hint)}`;
  const what = `${from}${printable(denial.destination)} ${printable(denial.protocol)}${port}`;
  return (
    `denied ${printable(denial.id)} ${what}: ${printable(denial.reason)}${rule} (${version}at the ` +
    `${denial.hop})${hint}`
  );
}

/** What its users must know of a TUN device under a coordinator. */
export const SHARED_BADGE = "every process of this host shares this badge";

/** Lines of the ready output: under which names, and how this host comes to ask for them. */
export function formatNames({ zone, resolver, entered, note, how }: NamesShown): string[] {
  const at = entered ? "entered into systemd-resolved" : `answered at ${resolver.join(" and ")}`;
  return [
    `  names: NAME.${printable(zone)}, ${at}${note === undefined ? "" : ` (${printable(note)})`}`,
    ...(how === undefined ? [] : [`  to use them: ${printable(how)}`]),
  ];
}

function formatDevice({ name, mtuBytes, routes }: NonNullable<Status["device"]>): string {
  return `${printable(name)} (MTU ${mtuBytes}; ${SHARED_BADGE}) to ${routes.join(" ")}`;
}

export function formatStatus(status: Status): string {
  const { coordinator, lease, nowMs } = status;
  const reach =
    coordinator === undefined
      ? undefined
      : coordinator.connected
        ? "connected"
        : `away${coordinator.lastError === undefined ? "" : `: ${coordinator.lastError}`}`;
  const sections = [
    properties([
      ["identity", status.identity ?? `${status.mode} mode`],
      ["sponsor", status.sponsor],
      ["tags", status.tags.length === 0 ? undefined : status.tags.join(" ")],
      ["session", status.session],
      ["public key", status.publicKey],
      ["addresses", status.addresses.join(" ")],
      ["network", status.network === undefined ? undefined : `${status.network.name} (${status.network.id})`],
      ["coordinator", coordinator === undefined ? undefined : `${coordinator.url} (${reach})`],
      [
        "policy",
        status.policyVersion === undefined ? undefined : `version ${status.policyVersion}, revision ${status.revision}`,
      ],
      ["lease", lease === undefined ? undefined : `ends ${relative(lease.endMs, nowMs)}`],
      ["state", status.stateProblem],
      ["device", status.device === undefined ? undefined : formatDevice(status.device)],
      [
        "UDP port",
        `${status.listenPort}, ${status.udp.name}${status.udp.reason === "" ? "" : ` (${status.udp.reason})`}`,
      ],
      ["crypto", status.crypto.reason === "" ? status.crypto.name : `${status.crypto.name} (${status.crypto.reason})`],
      ["up since", relative(status.startedMs, nowMs)],
    ]),
    table(
      ["PEER", "ADDRESS", "PATH", "HANDSHAKE", "RECEIVED", "SENT"],
      status.peers.map((peer) => [
        peer.identity ?? peer.publicKey,
        peer.addresses[0] ?? "",
        peer.endpoint === undefined ? peer.path : `${peer.path} ${peer.endpoint}`,
        peer.lastHandshakeMs === undefined ? "" : relative(peer.lastHandshakeMs, nowMs),
        `${peer.rxBytes} B`,
        `${peer.txBytes} B`,
      ]),
      "no peers that this one may know of",
    ),
  ];
  if (status.services.length > 0)
    sections.push(
      table(
        ["SERVICE", "PROTOCOL", "PORTS", "MAY REACH"],
        status.services.map((service) => [
          service.name,
          service.protocol,
          service.ports,
          service.allowed ? "yes" : `no: ${service.hint ?? "no grant"}`,
        ]),
        "",
      ),
    );
  if (status.serving.length > 0) sections.push(`serving  ${status.serving.map((name) => printable(name)).join(" ")}`);
  for (const { offer, reason } of status.refusedOffers)
    sections.push(`offer ${printable(offer)} refused: ${printable(reason)}`);
  if (status.entryPoints.length > 0)
    sections.push(["entry points", ...status.entryPoints.map(formatEntryPoint)].join("\n"));
  return sections.join("\n\n");
}
