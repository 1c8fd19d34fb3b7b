// Latency by percentile: each step to the right is one nine more, each step up ten times as long.
import { nanoseconds } from "./format";

const WIDTH = 400;
const HEIGHT = 160;

interface Point {
  share: number;
  ns: number;
}

export function PercentileChart({ label, curve }: { label: string; curve: Point[] }) {
  const [first, last] = [curve[0], curve.at(-1)];
  if (first === undefined || last === undefined) return null;
  const told = curve.filter((point) => point.share < 1).at(-1)?.share ?? 0;
  const most = Math.max(1, ninesOf(told));
  const power = (ns: number) => Math.log10(Math.max(ns, 1));
  const low = Math.floor(power(first.ns));
  const high = Math.max(low + 1, Math.ceil(power(last.ns)));
  const x = (share: number) => (WIDTH * Math.min(ninesOf(share), most)) / most;
  const y = (ns: number) => HEIGHT - (HEIGHT * (power(ns) - low)) / (high - low);
  const points = curve.map((point) => `${x(point.share).toFixed(1)} ${y(point.ns).toFixed(1)}`);
  const powers = Array.from({ length: high - low + 1 }, (_, index) => low + index);
  // The last share is told in binary: three nines may be a little less.
  const nines = Array.from({ length: Math.floor(most + 1e-6) + 1 }, (_, index) => index);
  const at = (share: number) => nanoseconds(curve.find((point) => point.share >= share)?.ns ?? last.ns);
  const words = `${label}, latency by percentile: half within ${at(0.5)}, 99 % within ${at(0.99)}, all within ${nanoseconds(last.ns)}`;
  return (
    <div class="percentiles" role="img" aria-label={words}>
      <div class="percentile-plot" aria-hidden="true">
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none">
          <path class="grid" d={powers.map((power) => `M0 ${y(10 ** power)}H${WIDTH}`).join("")} />
          <path class="grid" d={nines.map((nines) => `M${x(1 - 10 ** -nines)} 0V${HEIGHT}`).join("")} />
          <path class="curve" d={`M${points.join("L")}`} />
        </svg>
        {powers.map((power) => (
          <span key={power} class="height" style={{ top: `${(100 * y(10 ** power)) / HEIGHT}%` }}>
            {nanoseconds(10 ** power).replace(/\.0+(?= )/, "")}
          </span>
        ))}
        {nines.map((nines) => (
          <span key={nines} class="nines" style={{ left: `${(100 * x(1 - 10 ** -nines)) / WIDTH}%` }}>
            {(100 - 100 / 10 ** nines).toFixed(Math.max(0, nines - 2))}&nbsp;%
          </span>
        ))}
      </div>
    </div>
  );
}

const ninesOf = (share: number) => (share >= 1 ? Infinity : -Math.log10(1 - share));
