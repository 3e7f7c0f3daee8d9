// The run as a picture: for each figure how many times as good as wireguard-go, one bar a contender, longer is better.
// SVG by hand: a few rectangles need no library.
import { type Judgement, judgements, type RunRecord, samplesOf } from "./run-record.ts";
import { EQUAL_BELOW, pairedRatio } from "./statistics.ts";

const WIDTH = 880;
const LABELS = 320;
const RIGHT = 60;
const TOP = 70;
const BAR = 11;
const GAP = 14;
const TIMES_MAX = 4;
const COLOURS = ["#d9480f", "#868e96", "#4c6ef5", "#12b886", "#e0a800", "#ae3ec9"];

const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const x = (times: number): number => LABELS + (Math.min(times, TIMES_MAX) / TIMES_MAX) * (WIDTH - LABELS - RIGHT);
const n = (number: number): string => String(Number(number.toFixed(1)));

function text(at: { x: number; y: number }, content: string, attributes = ""): string {
  return `<text x="${n(at.x)}" y="${n(at.y)}"${attributes}>${escaped(content)}</text>`;
}

/** How many times as good as the base a contender is in a figure; undefined when it can't be said. */
function timesAsGood(run: RunRecord, { figure }: Judgement, name: string): number | undefined {
  const samples = samplesOf(run, figure);
  const ratio = pairedRatio(samples[name] ?? [], samples[run.base] ?? []);
  if (ratio === undefined || ratio === 0) return undefined;
  return figure.better === "more" ? ratio : 1 / ratio;
}

function group(run: RunRecord, judgement: Judgement, top: number): string[] {
  const shown = run.contenders.map(({ name }) => ({ name, times: timesAsGood(run, judgement, name) }));
  const middle = top + (shown.length * BAR) / 2 + 4;
  const lines = [text({ x: LABELS - 10, y: middle }, judgement.figure.title, ' text-anchor="end"')];
  shown.forEach(({ name, times }, index) => {
    if (times === undefined) return;
    const y = top + index * BAR;
    const size = `x="${n(LABELS)}" y="${n(y)}" width="${n(x(times) - LABELS)}" height="${BAR - 2}"`;
    lines.push(`<rect ${size} fill="${colour(index)}"><title>${escaped(name)}: ${times.toFixed(2)} ×</title></rect>`);
    lines.push(text({ x: x(times) + 4, y: y + BAR - 3 }, times.toFixed(2), ' font-size="9" fill="#495057"'));
  });
  return lines;
}

const colour = (index: number): string => COLOURS[index % COLOURS.length]!;

export function chart(run: RunRecord): string {
  // A plain size of our own has no reference to be shown by.
  const shown = judgements(run).filter((judgement) => timesAsGood(run, judgement, run.ours) !== undefined);
  const step = run.contenders.length * BAR + GAP;
  const bottom = TOP + shown.length * step;
  const height = bottom + 24;
  const band = `x="${n(x(1 / EQUAL_BELOW))}" width="${n(x(EQUAL_BELOW) - x(1 / EQUAL_BELOW))}"`;
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text({ x: 16, y: 24 }, `How many times as good as ${run.base}; longer is better`, ' font-size="15"'),
    `<rect ${band} y="${TOP - 8}" height="${bottom - TOP}" fill="#f1f3f5"><title>called equal</title></rect>`,
    `<path d="M${n(x(1))} ${TOP - 8}V${bottom - 8}" stroke="#adb5bd"/>`,
  ];
  run.contenders.forEach(({ name }, index) => {
    const left = 16 + index * 130;
    lines.push(`<rect x="${left}" y="38" width="10" height="10" fill="${colour(index)}"/>`);
    lines.push(text({ x: left + 15, y: 47 }, name));
  });
  shown.forEach((judgement, index) => {
    lines.push(...group(run, judgement, TOP + index * step));
  });
  const { cores, cpu, kernel, node } = run.machine;
  const caption = `${run.date.slice(0, 10)}, ${cores} × ${cpu}, Linux ${kernel}, Node ${node}`;
  lines.push(text({ x: 16, y: height - 8 }, caption, ' font-size="10" fill="#495057"'), "</svg>", "");
  return lines.join("\n");
}
