// The few parts that pages are made of.
import type { ComponentChildren } from "preact";
import { createContext } from "preact";
import { useContext, useEffect, useId, useMemo, useRef, useState } from "preact/hooks";
import type { Live, Session } from "./api";
import { count } from "./format";

export const SessionContext = createContext<Session | null>(null);
export const useMayChange = () => useContext(SessionContext)?.may_change === true;

/** Says something once, below the page and to those who listen to it. */
export const Notices = createContext<(text: string, bad?: boolean) => void>(() => {});
export const useNotice = () => useContext(Notices);

export type Tone = "plain" | "good" | "warn" | "bad" | "accent";

export function Badge({ tone = "plain", children, title }: { tone?: Tone; children: ComponentChildren; title?: string }) {
  return (
    <span class={`badge ${tone}`} title={title}>
      {children}
    </span>
  );
}

export function Card({ title, aside, children, class: more }: { title?: ComponentChildren; aside?: ComponentChildren; children: ComponentChildren; class?: string }) {
  return (
    <section class={`card ${more ?? ""}`}>
      {title !== undefined && (
        <header>
          <h2>{title}</h2>
          {aside !== undefined && <div class="aside">{aside}</div>}
        </header>
      )}
      {children}
    </section>
  );
}

export function Tile({ label, value, unit, note, tone, words }: { label: string; value: string; unit?: string; note?: ComponentChildren; tone?: Tone; words?: boolean }) {
  return (
    <div class={`tile ${tone ?? ""} ${words ? "words" : ""}`}>
      <dt>{label}</dt>
      <dd>
        <span class="value">{value}</span>
        {unit && <span class="unit"> {unit}</span>}
      </dd>
      {note !== undefined && <dd class="note">{note}</dd>}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** The broker's words as a sentence: they begin as the command line has them, after `turbopump: `. */
export const sentence = (text: string) => `${text.slice(0, 1).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

/** What is there instead of a page's content while there is none. */
export function Awaited<T>({ live, what, children }: { live: Live<T>; what: string; children: (data: T) => ComponentChildren }) {
  if (live.data === null) {
    if (live.error === null) return <p class="empty loading">Loading {what}&hellip;</p>;
    return (
      <div class="card problem" role="alert">
        <p>{sentence(live.error)}</p>
        <button type="button" onClick={live.refresh}>
          Try again
        </button>
      </div>
    );
  }
  return (
    <>
      {live.error !== null && (
        <p class="stale" role="status">
          {sentence(live.error)} What is below is no longer live; it is asked for again.
        </p>
      )}
      {children(live.data)}
    </>
  );
}

export interface Column<Row> {
  head: string;
  cell: (row: Row) => ComponentChildren;
  /** What rows are sorted by here, or the broker's name for it; without it the column is not sorted by. */
  by?: ((row: Row) => number | string) | string;
  number?: boolean;
  /** Takes the room that is left, and is the title of a row on a narrow screen. */
  main?: boolean;
  /** Left out where there is little room. */
  minor?: boolean;
  /** Many rows have nothing here: on a narrow screen those leave it out. */
  maybe?: boolean;
}

/** What a cell shows that has nothing. */
export const NONE = "\u2013";

/** A table; on a narrow screen each row is a card of its own. */
export function Table<Row>({
  label,
  columns,
  rows,
  of,
  sort,
  setSort,
  empty,
}: {
  label: string;
  columns: Column<Row>[];
  rows: Row[];
  of: (row: Row) => string;
  /** What the broker sorts by, the largest first or the other way round with a `-`, and how it is told another order. */
  sort?: string;
  setSort?: (sort: string) => void;
  empty: ComponentChildren;
}) {
  const [order, set] = useState<{ head: string; up: boolean } | null>(null);
  const shown = useMemo(() => {
    const by = columns.find((column) => column.head === order?.head)?.by;
    if (typeof by !== "function" || !order) return rows;
    const sign = order.up ? 1 : -1;
    return [...rows].sort((one, other) => {
      const [a, b] = [by(one), by(other)];
      return sign * (typeof a === "string" || typeof b === "string" ? String(a).localeCompare(String(b)) : a - b);
    });
  }, [rows, order, columns]);
  if (rows.length === 0) return <Empty>{empty}</Empty>;
  /** Which way a column is sorted now; `undefined`: not by it. */
  const upward = (column: Column<Row>): boolean | undefined => {
    if (typeof column.by !== "string") return order?.head === column.head ? order.up : undefined;
    if (sort !== column.by && sort !== `-${column.by}`) return undefined;
    // Names come in their order, and what is counted the largest first.
    return (sort === column.by) === !column.number;
  };
  const turn = (column: Column<Row>) => {
    const now = upward(column);
    if (typeof column.by === "string") setSort?.(sort === column.by ? `-${column.by}` : column.by);
    else set({ head: column.head, up: now === undefined ? !column.number : !now });
  };
  return (
    <div class="scroll">
      <table aria-label={label}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th
                key={column.head}
                scope="col"
                class={classes(column)}
                aria-sort={upward(column) === undefined ? undefined : upward(column) ? "ascending" : "descending"}
              >
                {column.by ? (
                  <button type="button" class="sort" onClick={() => turn(column)}>
                    {column.head}
                  </button>
                ) : (
                  column.head
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {shown.map((row) => (
            <tr key={of(row)}>
              {columns.map((column) => {
                const cell = column.cell(row);
                return (
                  <td key={column.head} class={`${classes(column)}${column.maybe && cell === NONE ? " none" : ""}`} data-head={column.head}>
                    <span>{cell}</span>
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const classes = (column: { number?: boolean; main?: boolean; minor?: boolean }) =>
  [column.number && "number", column.main && "main", column.minor && "minor"].filter(Boolean).join(" ");

/** A share of the largest, as a bar that only repeats what the number says. */
export function Share({ value, most, tone }: { value: number; most: number; tone?: Tone }) {
  const width = most > 0 ? Math.max(value > 0 ? 2 : 0, Math.min(100, (100 * value) / most)) : 0;
  return (
    <span class={`share ${tone ?? ""}`} aria-hidden="true">
      <span style={{ width: `${width}%` }} />
    </span>
  );
}

/** A number with its bar beside it, one below the other in a column. */
export function Barred({ value, most, tone }: { value: number; most: number; tone?: Tone }) {
  return (
    <span class="barred">
      <Share value={value} most={most} tone={tone} />
      <span>{count(value)}</span>
    </span>
  );
}

/** A dialog over the page: Escape closes it, and the focus goes back to where it was. */
export function Dialog({ title, onClose, children, wide }: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  useEffect(() => {
    const back = document.activeElement as HTMLElement | null;
    dialog.current?.showModal();
    return () => back?.focus?.();
  }, []);
  return (
    <dialog ref={dialog} class={wide ? "wide" : ""} aria-labelledby={heading} onClose={onClose} onCancel={onClose}>
      <header>
        <h2 id={heading}>{title}</h2>
        <button type="button" class="close" aria-label="Close" onClick={onClose}>
          &#10005;
        </button>
      </header>
      <div class="body">{children}</div>
    </dialog>
  );
}

export function Field({ label, hint, children }: { label: string; hint?: ComponentChildren; children: ComponentChildren }) {
  return (
    <label class="field">
      <span class="label">{label}</span>
      {children}
      {hint && <span class="hint">{hint}</span>}
    </label>
  );
}

/** A choice of a few, one of which counts. */
export function Tabs<Name extends string>({ label, names, chosen, choose }: { label: string; names: [Name, string][]; chosen: Name; choose: (name: Name) => void }) {
  const group = useId();
  return (
    <fieldset class="tabs">
      <legend class="unseen">{label}</legend>
      {names.map(([name, text]) => (
        <label key={name} class={name === chosen ? "chosen" : ""}>
          <input type="radio" name={group} checked={name === chosen} onChange={() => choose(name)} />
          {text}
        </label>
      ))}
    </fieldset>
  );
}

export function Filter({ value, set, label, placeholder }: { value: string; set: (text: string) => void; label: string; placeholder: string }) {
  return (
    <input
      type="search"
      class="filter"
      aria-label={label}
      placeholder={placeholder}
      value={value}
      spellcheck={false}
      autocomplete="off"
      onInput={(event) => set(event.currentTarget.value)}
    />
  );
}

/** `text` once it has not changed for a while. */
export function useSettled(text: string, ms = 250): string {
  const [settled, set] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => set(text), ms);
    return () => clearTimeout(timer);
  }, [text, ms]);
  return settled;
}

export function Copy({ text, what }: { text: string; what: string }) {
  const notice = useNotice();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      notice(`${what} copied`);
    } catch {
      // Pages that came without TLS from another machine have no clipboard.
      notice(`the browser does not let this page copy: mark the text and copy it`, true);
    }
  };
  return (
    <button type="button" class="small" onClick={copy}>
      Copy
    </button>
  );
}
