// "Did you mean …?": the candidate that a typing mistake was most likely meant for.

/** Edits (insert, remove, replace) between two short texts; stops counting beyond `most`. */
function distance(a: string, b: string, most: number): number {
  if (Math.abs(a.length - b.length) > most) return most + 1;
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      row.push(Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + same));
    }
    previous = row;
  }
  return previous[b.length]!;
}

/** Undefined when none is near enough. Long texts are not compared: they come from outside. */
export function nearest(text: string, candidates: Iterable<string>): string | undefined {
  if (text.length === 0 || text.length > 64) return undefined;
  const most = text.length <= 4 ? 1 : text.length <= 8 ? 2 : 3;
  let best: string | undefined;
  let bestDistance = most + 1;
  for (const candidate of candidates) {
    const edits = distance(text.toLowerCase(), candidate.toLowerCase(), most);
    if (edits < bestDistance) {
      best = candidate;
      bestDistance = edits;
    }
  }
  return best;
}

/** The beginning of a hint; empty when there is nothing near. */
export function didYouMean(near: string | undefined): string {
  return near === undefined ? "" : `did you mean "${near}"? `;
}
