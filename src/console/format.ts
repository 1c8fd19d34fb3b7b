// Numbers, sizes and times as a person reads them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["", "k", "M", "G", "T"];

/** 1,234,567 */
export const count = (value: number) => whole.format(value);

/** 1.23 M: three digits at most. */
export function short(value: number): string {
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = value >= 99.95 || Number.isInteger(value) ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)}${unit > 0 ? ` ${UNITS[unit]}` : ""}`;
}

export const bytes = (value: number) => {
  const text = short(value);
  return text.includes(" ") ? `${text}B` : `${text} B`;
};

export const rate = (value: number | null) => (value === null ? "\u2013" : short(value));

/** How long a topic keeps its messages. */
export const retention = (of: { retention: string; retention_ms: number | null }) =>
  of.retention_ms === null ? (of.retention === "none" ? "for good" : of.retention) : age(of.retention_ms);

export function nanoseconds(value: number): string {
  if (value < 1_000) return `${value} ns`;
  if (value < 999_500) return `${three(value / 1_000)} \u00b5s`;
  if (value < 999_500_000) return `${three(value / 1_000_000)} ms`;
  return `${three(value / 1_000_000_000)} s`;
}

const three = (value: number) => value.toFixed(value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);

export function age(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 86_400_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} d`;
}

const two = (value: number) => String(value).padStart(2, "0");

/** Local time in the order that sorts: 2026-11-30 18:15:33.123 */
export function moment(ms: number): string {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return `@${ms}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** The time zone that times are shown in now, as its distance from UTC. */
export function zone(at = new Date()): string {
  const minutes = -at.getTimezoneOffset();
  if (minutes === 0) return "UTC";
  return `UTC${minutes < 0 ? "\u2212" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
}

/** What `datetime-local` takes. */
export const forInput = (ms: number) => moment(ms).slice(0, 19).replace(" ", "T");

export const plural = (number: number, one: string, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** The growth of a counter between two looks, per second; `null` before there are two, and where it began anew. */
export function perSecond(now: number, before: number | undefined | null, ms: number): number | null {
  if (before === undefined || before === null || ms <= 0 || now < before) return null;
  return ((now - before) * 1_000) / ms;
}
