// Lines over the last minutes, drawn as SVG. What they show is said in words as well: by the legend and the label.
import { useRef, useState } from "preact/hooks";
import { short } from "./format";

export interface Line {
  name: string;
  /** One of the style sheet's colours of lines. */
  tone: "one" | "two";
  values: (number | null)[];
}

const WIDTH = 600;
const HEIGHT = 140;

/** The next of 1, 2, 5 times a power of ten. */
export function ceiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const digit = [1, 2, 5, 10].find((digit) => digit * power >= value) ?? 10;
  return digit * power;
}

export function Chart({ lines, times, unit, slots }: { lines: Line[]; times: number[]; unit: string; slots: number }) {
  const [at, look] = useState<number | null>(null);
  const box = useRef<HTMLDivElement>(null);
  const values = lines.flatMap((line) => line.values).filter((value): value is number => value !== null);
  const top = ceiling(Math.max(1, ...values));
  const first = slots - times.length;
  const x = (index: number) => ((first + index) * WIDTH) / Math.max(1, slots - 1);
  const y = (value: number) => HEIGHT - (value * (HEIGHT - 6)) / top;
  const last = times.length - 1;
  const shown = at !== null && at <= last ? at : last;
  const move = (event: PointerEvent) => {
    const bounds = box.current?.getBoundingClientRect();
    if (!bounds || last < 0) return;
    const slot = Math.round(((event.clientX - bounds.left) / bounds.width) * (slots - 1)) - first;
    look(Math.max(0, Math.min(last, slot)));
  };
  const step = (event: KeyboardEvent) => {
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (by === 0 || last < 0) return;
    event.preventDefault();
    look(Math.max(0, Math.min(last, shown + by)));
  };
  const ago = shown >= 0 && shown < last ? `${Math.round((times[last]! - times[shown]!) / 1000)} s ago` : "now";
  const said = lines.map((line) => `${line.name} ${short(line.values[shown] ?? 0)} ${unit}`).join(", ");
  return (
    <div class="chart">
      <div class="legend">
        {lines.map((line) => (
          <span key={line.name} class={`line-${line.tone}`}>
            <i aria-hidden="true" /> {line.name} <b>{line.values[shown] == null ? "\u2013" : short(line.values[shown]!)}</b>
          </span>
        ))}
        <span class="when">{ago}</span>
      </div>
      <div
        class="plot"
        ref={box}
        role="img"
        tabIndex={0}
        aria-label={`${said}, ${ago}. Left and right arrow keys move in time.`}
        onPointerMove={move}
        onPointerLeave={() => look(null)}
        onKeyDown={step}
        onBlur={() => look(null)}
      >
        <span class="tick top">{short(top)}</span>
        <span class="tick middle">{short(top / 2)}</span>
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
          <path class="grid" d={`M0 ${y(top)}H${WIDTH}M0 ${y(top / 2)}H${WIDTH}M0 ${HEIGHT}H${WIDTH}`} />
          {lines.map((line) => (
            <g key={line.name} class={`line-${line.tone}`}>
              <path class="area" d={area(line.values, x, y)} />
              <path class="stroke" d={stroke(line.values, x, y)} />
            </g>
          ))}
          {at !== null && shown >= 0 && <path class="cross" d={`M${x(shown)} 0V${HEIGHT}`} />}
        </svg>
      </div>
    </div>
  );
}

type Scale = (value: number) => number;

const round = (value: number) => value.toFixed(1);

/** The stretches of values that follow one another. */
function stretches(values: (number | null)[]): [number, number][][] {
  const found: [number, number][][] = [];
  let open: [number, number][] | null = null;
  values.forEach((value, index) => {
    if (value === null) {
      open = null;
      return;
    }
    if (open === null) found.push((open = []));
    open.push([index, value]);
  });
  return found;
}

function stroke(values: (number | null)[], x: Scale, y: Scale): string {
  const path = (points: [number, number][]) => points.map(([index, value], at) => `${at ? "L" : "M"}${round(x(index))} ${round(y(value))}`).join("");
  return stretches(values).map(path).join("");
}

function area(values: (number | null)[], x: Scale, y: Scale): string {
  return stretches(values)
    .filter((points) => points.length > 1)
    .map((points) => {
      const top = points.map(([index, value]) => `L${round(x(index))} ${round(y(value))}`).join("");
      return `M${round(x(points[0]![0]))} ${HEIGHT}${top}L${round(x(points.at(-1)![0]))} ${HEIGHT}Z`;
    })
    .join("");
}
