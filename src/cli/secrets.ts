// No secret in an argv, a log or an error: tokens are refused on the command line and cut out of whatever is printed
// by mistake.
import { WirebadgeError } from "../base/errors.ts";

const TOKEN = /wb_([a-z]{1,16})_[A-Za-z0-9_-]{8,}/g;

/**
 * Every token in `text` becomes `wb_join_[hidden]`: for errors and logs, never for a command whose answer is the
 * token.
 */
export function hideSecrets(text: string): string {
  return text.replace(TOKEN, (_, kind: string) => `wb_${kind}_[hidden]`);
}

/**
 * Arguments are visible to every user of the machine (`ps`), so a token among them is refused, and not repeated in
 * the refusal. Throws USAGE.
 */
export function refuseTokensInArguments(words: readonly string[]): void {
  if (!words.some((word) => word.includes("wb_join_") || hideSecrets(word) !== word)) return;
  throw new WirebadgeError(
    "USAGE",
    "a token stands on the command line, where every user of this machine can read it",
    {
      hint:
        "revoke it (wirebadge token list, token revoke ID), then give a new one by --token-file FILE, " +
        "--token-file - (standard input) or WIREBADGE_TOKEN",
    },
  );
}
