// How a command is declared: every one has --json, a summary, and examples in its --help (a test walks them all).
import { type Command, InvalidArgumentError } from "commander";
import { isV4, parseAddress, parsePrefix } from "../base/address.ts";
import { parseDurationMs } from "../base/units.ts";

export interface CommandText {
  /** Name and arguments as commander writes them: `show <name>`. */
  readonly usage: string;
  readonly summary: string;
  /** More than the summary says, for --help. */
  readonly details?: string;
  /** Whole command lines. */
  readonly examples: readonly string[];
}

/** A command that does something: `addCommand(parent, { usage: "show <name>", summary: "…", examples: [] })` */
export function addCommand(parent: Command, text: CommandText): Command {
  const command = parent.command(text.usage).summary(text.summary);
  command.description(
    text.details === undefined ? text.summary : `${text.summary}\n\n${text.details.replaceAll("\n", " ")}`,
  );
  command.option("--json", "print one JSON object instead of text");
  command.addHelpText("after", `\nExamples:\n${text.examples.map((line) => `  $ ${line}`).join("\n")}`);
  return command.allowExcessArguments(false).copyInheritedSettings(parent);
}

/** A command that only holds others: `wirebadge token`. */
export function addFamily(parent: Command, name: string, summary: string): Command {
  return parent.command(name).summary(summary).description(summary).copyInheritedSettings(parent);
}

/** For options that may be given several times. */
export function collect<T>(parse: (text: string) => T): (text: string, before: readonly T[] | undefined) => T[] {
  return (text, before) => [...(before ?? []), parse(text)];
}

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

function refuse(expected: string): never {
  throw new InvalidArgumentError(`Expected ${expected}.`);
}

/** Port 0 asks the system for a free one. */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : -1;
  return port < 0 || port > 65_535 ? refuse("a port from 0 to 65535") : port;
}

/** `127.0.0.1:7300`, `[::1]:7300`, `0.0.0.0:0`; the host is an address, not a name. */
export function parseListen(text: string): HostPort {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (match === null || host === undefined || parseAddress(host) === undefined || Number(match[3]) > 65_535)
    return refuse("ADDRESS:PORT, as in 127.0.0.1:7300 or [::1]:7300");
  return { host, port: Number(match[3]) };
}

export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** True for 127.0.0.0/8 and ::1, by the address's text. */
export function isLoopback(host: string): boolean {
  const address = parseAddress(host.replace(/^\[|\]$/g, ""));
  if (address === undefined) return host === "localhost";
  return isV4(address) ? address.w3 >>> 24 === 127 : host.replace(/^\[|\]$/g, "") === "::1";
}

/** True for 0.0.0.0 and ::. */
export function isUnspecified(host: string): boolean {
  const address = parseAddress(host);
  return address !== undefined && address.w3 === 0 && (isV4(address) || (address.w0 | address.w1 | address.w2) === 0);
}

/** Milliseconds. */
export function parseDuration(text: string): number {
  return parseDurationMs(text) ?? refuse("a duration such as 30m, 12h or 7d");
}

export function parseCount(text: string): number {
  return /^[1-9]\d{0,8}$/.test(text) ? Number(text) : refuse("a whole number from 1");
}

/** A CIDR or `host:PATTERN`, as `--route` and `--may-route` take them. */
export function parseRoute(text: string): string {
  if (/^host:(?:\*|(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)$/.test(text)) return text;
  return text.includes("/") && parsePrefix(text) !== undefined
    ? text
    : refuse("a prefix such as 10.20.0.0/16, or host:*.staging.internal");
}

/** An identity's full name. */
export function parseIdentity(text: string): string {
  return /^(?:user|node|agent):[^\s:]{1,320}$/.test(text)
    ? text
    : refuse("KIND:NAME with the kind user, node or agent, as in agent:coder or user:ana@example.com");
}

export function parseHttpUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const fine = url !== undefined && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
  return fine && url.search === "" && url.hash === ""
    ? text.replace(/\/+$/, "")
    : refuse("an http:// or https:// URL without credentials, query or fragment");
}
