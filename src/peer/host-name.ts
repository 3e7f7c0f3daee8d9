// DNS names as clients and policies write them: checked, lower-cased, matched against `host:` patterns.

const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
/**
 * getaddrinfo takes "2130706433", "0x7f.1" and "127.1" for addresses: such a last label is never a name (RFC 3696
 * §2).
 */
const NUMERIC_LABEL = /^(?:\d+|0x[0-9a-f]*)$/;
const NAME_MAX_BYTES = 253; // RFC 1035 §2.3.4, without the final dot

/** Lower-cased and without a final dot; undefined when it is not a host name. An address in any spelling is not one. */
export function parseHostName(text: string): string | undefined {
  if (text.length > NAME_MAX_BYTES + 1) return undefined;
  const name = (text.endsWith(".") ? text.slice(0, -1) : text).toLowerCase();
  if (name.length === 0 || name.length > NAME_MAX_BYTES) return undefined;
  const labels = name.split(".");
  if (!labels.every((label) => LABEL.test(label))) return undefined;
  return NUMERIC_LABEL.test(labels.at(-1)!) ? undefined : name;
}

/** `*.staging.internal` covers names below it, not itself; `*` covers every name; else equality. */
export function matchesPattern(pattern: string, name: string): boolean {
  if (pattern === "*") return true;
  if (pattern.startsWith("*.")) return name.length > pattern.length - 1 && name.endsWith(pattern.slice(1));
  return pattern === name;
}

/** The longest pattern wins, an exact name before a wildcard of it. Undefined when none matches. */
export function longestMatch<T>(name: string, routes: Iterable<T>, patternOf: (route: T) => string): T | undefined {
  let best: T | undefined;
  let bestRank = -1;
  for (const route of routes) {
    const pattern = patternOf(route);
    if (!matchesPattern(pattern, name)) continue;
    const rank = pattern.startsWith("*") ? pattern.length : 1024 + pattern.length;
    if (rank > bestRank) {
      best = route;
      bestRank = rank;
    }
  }
  return best;
}
