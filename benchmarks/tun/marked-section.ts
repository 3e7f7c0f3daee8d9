// The part of a document that a command writes: between `<!-- NAME -->` and `<!-- /NAME -->`, each on its own line.

/** `text` with what stands between the markers replaced. @throws Error when they aren't there once each, in order */
export function withMarked(text: string, name: string, body: string): string {
  const [opening, closing] = [`<!-- ${name} -->`, `<!-- /${name} -->`];
  const parts = text.split(opening);
  const [before, rest] = parts;
  const tail = rest?.split(closing);
  if (parts.length !== 2 || tail?.length !== 2) throw new Error(`${opening} … ${closing} must stand there once`);
  return `${before}${opening}\n${body.trim()}\n${closing}${tail[1]}`;
}
