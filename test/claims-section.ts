// Sections of test/CLAIMS.md that commands write: "Proof" by `npm run proof`, "Figures" and "TUN figures" by
// `npm run bench`.
import { readFileSync, writeFileSync } from "node:fs";

const TABLE = new URL("CLAIMS.md", import.meta.url);

/** `text` with the section `## heading` replaced, or put at its end. */
export function withSection(text: string, heading: string, body: string): string {
  const sections = text.trimEnd().split(/\n(?=## )/);
  const at = sections.findIndex((section) => section.startsWith(`## ${heading}\n`));
  sections.splice(at === -1 ? sections.length : at, at === -1 ? 0 : 1, `## ${heading}\n\n${body.trim()}\n`);
  return `${sections.map((section) => section.trimEnd()).join("\n\n")}\n`;
}

export function writeSection(heading: string, body: string): void {
  writeFileSync(TABLE, withSection(readFileSync(TABLE, "utf8"), heading, body));
}

/** The text under `## heading`; empty when there is none. */
export function readSection(heading: string): string {
  const sections = readFileSync(TABLE, "utf8").split(/\n(?=## )/);
  return sections.find((section) => section.startsWith(`## ${heading}\n`)) ?? "";
}
