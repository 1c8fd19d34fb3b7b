import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { type Message, type MessageRow, type Messages, type Page, type TopicRow, describe, get, query, useLive } from "../api";
import { type View, asHex, asJson, asText, fromBase64, visible } from "../body";
import { bytes, count, moment, plural, zone } from "../format";
import { type Route, go, link } from "../router";
import { Badge, Card, Copy, Dialog, Empty, Field, NONE, Table, Tabs, sentence } from "../ui";

type By = "time" | "key" | "id";

const WAYS: [By, string][] = [
  ["time", "By time"],
  ["key", "By key"],
  ["id", "By id"],
];
const COUNTS = ["20", "50", "100"];

/** What is looked for, as it is in the address. */
interface Sought {
  by: By;
  topic: string;
  key: string;
  id: string;
  from: string;
  to: string;
  queue: string;
  count: string;
}

function soughtIn(route: Route): Sought {
  const said = (name: string, otherwise = "") => route.search.get(name) ?? otherwise;
  const by = WAYS.find(([by]) => by === said("by"))?.[0] ?? (said("id") ? "id" : said("key") ? "key" : "time");
  return {
    by,
    topic: said("topic"),
    key: said("key"),
    id: said("id"),
    from: said("from"),
    to: said("to"),
    queue: said("queue"),
    count: said("count", "50"),
  };
}

const addressOf = (sought: Sought) => link(["messages"], { ...sought, count: sought.count === "50" ? null : sought.count });

/** The request for a page of what is sought; `null`: too little is said. */
function requestOf(sought: Sought, before: string | null): string | null {
  const ms = (text: string) => (text === "" ? null : new Date(text).getTime());
  const { by, topic } = sought;
  if (by === "id") return sought.id.trim() === "" ? null : `messages?${query({ id: sought.id.trim(), topic: topic.trim() })}`;
  if (topic.trim() === "" || (by === "key" && sought.key.trim() === "")) return null;
  return `messages?${query({
    topic: topic.trim(),
    key: by === "key" ? sought.key.trim() : null,
    from: ms(sought.from),
    to: ms(sought.to),
    queue: by === "time" ? sought.queue : null,
    count: by === "key" ? Math.min(64, Number(sought.count)) : sought.count,
    before,
  })}`;
}

export function MessagesPage({ route }: { route: Route }) {
  const sought = useMemo(() => soughtIn(route), [route]);
  return (
    <>
      <h1>Messages</h1>
      <Card>
        <Form key={addressOf(sought)} sought={sought} />
      </Card>
      <Results sought={sought} />
    </>
  );
}

function Form({ sought }: { sought: Sought }) {
  const [form, set] = useState(sought);
  const topics = useLive<Page<TopicRow>>(`topics?${query({ filter: form.topic, count: 20 })}`, 30_000);
  const change = (changes: Partial<Sought>) => set((last) => ({ ...last, ...changes }));
  const text = (name: keyof Sought) => ({
    value: form[name],
    spellcheck: false,
    autocomplete: "off",
    onInput: (event: { currentTarget: HTMLInputElement }) => change({ [name]: event.currentTarget.value }),
  });
  const look = (event: Event) => {
    event.preventDefault();
    const address = addressOf(form);
    if (location.hash === address) dispatchEvent(new HashChangeEvent("hashchange"));
    else go(address);
  };
  return (
    <form class="search" onSubmit={look}>
      <Tabs label="How to look" names={WAYS} chosen={form.by} choose={(by) => change({ by })} />
      <div class="row">
        <Field label={form.by === "id" ? "Topic (for an id that its producer gave)" : "Topic"}>
          <input list="topics" required={form.by !== "id"} {...text("topic")} />
          <datalist id="topics">
            {topics.data?.rows.map((row) => (
              <option key={row.topic} value={row.topic} />
            ))}
          </datalist>
        </Field>
        {form.by === "key" && (
          <Field label="Key">
            <input required {...text("key")} />
          </Field>
        )}
        {form.by === "id" && (
          <Field label="Id">
            <input required {...text("id")} />
          </Field>
        )}
        {form.by !== "id" && (
          <>
            <Field label={`From (${zone()})`}>
              <input type="datetime-local" step={1} {...text("from")} />
            </Field>
            <Field label={`To (${zone()})`}>
              <input type="datetime-local" step={1} {...text("to")} />
            </Field>
          </>
        )}
        {form.by === "time" && (
          <Field label="Queue">
            <input type="number" min={0} placeholder="all" {...text("queue")} />
          </Field>
        )}
        {form.by !== "id" && (
          <Field label="At most">
            <select value={form.count} onChange={(event) => change({ count: event.currentTarget.value })}>
              {COUNTS.map((number) => (
                <option key={number}>{number}</option>
              ))}
            </select>
          </Field>
        )}
        <button type="submit" class="primary">
          Search
        </button>
      </div>
    </form>
  );
}

/** Messages, page by page; the newest first. */
function Results({ sought }: { sought: Sought }) {
  const [found, set] = useState<Messages | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [open, setOpen] = useState<MessageRow | null>(null);
  const load = async (before: string | null, signal?: AbortSignal) => {
    const path = requestOf(sought, before);
    if (path === null) return;
    setBusy(true);
    try {
      const page = await get<Messages>(path, signal);
      set((last) => (before === null || last === null ? page : { ...page, messages: [...last.messages, ...page.messages] }));
      setError(null);
    } catch (error) {
      if (!signal?.aborted) setError(describe(error));
    } finally {
      if (!signal?.aborted) setBusy(false);
    }
  };
  useEffect(() => {
    const stop = new AbortController();
    set(null);
    setError(null);
    void load(null, stop.signal);
    return () => stop.abort();
  }, [sought]);
  if (requestOf(sought, null) === null) return <Empty>Name a topic, and the newest of its messages are here.</Empty>;
  return (
    <>
      <Card title="Found" aside={found !== null && `${plural(found.messages.length, "message")}, times of ${zone()}`}>
        {error !== null && (
          <p class="error" role="alert">
            {sentence(error)}
          </p>
        )}
        {found === null ? (
          error === null && <p class="empty loading">Looking&hellip;</p>
        ) : (
          <>
            <MessageTable rows={found.messages} look={setOpen} />
            {!found.complete && found.next === null && <p class="hint">There may be more: not everything that is stored could be looked through.</p>}
            {found.next !== null && (
              <div class="more">
                <button type="button" disabled={busy} onClick={() => void load(found.next)}>
                  {found.messages.length === 0 ? "Look further back" : "Older ones"}
                </button>
              </div>
            )}
          </>
        )}
      </Card>
      {open !== null && <MessageDialog row={open} onClose={() => setOpen(null)} />}
    </>
  );
}

export function MessageTable({ rows, look, action }: { rows: MessageRow[]; look: (row: MessageRow) => void; action?: (row: MessageRow) => ComponentChildren }) {
  return (
    <Table<MessageRow>
      label="Messages"
      rows={rows}
      of={(row) => `${row.shard} ${row.position} ${row.index}`}
      empty="No message is like that."
      columns={[
        {
          head: "Stored",
          main: true,
          cell: (row) => (
            <button type="button" class="link" onClick={() => look(row)}>
              {moment(row.store_time_ms)}
            </button>
          ),
        },
        ...(action ? [{ head: "From", maybe: true, cell: (row: MessageRow) => row.origin_topic ?? NONE }] : []),
        { head: "Queue \u00b7 offset", cell: (row) => <span class="place">{`${row.queue} \u00b7 ${count(row.offset)}`}</span> },
        { head: "Tag", maybe: true, cell: (row) => (row.tag ? <Badge>{visible(row.tag)}</Badge> : NONE) },
        { head: "Keys", maybe: true, cell: (row) => (row.keys ? <code>{visible(row.keys)}</code> : NONE) },
        { head: "Size", number: true, minor: true, cell: (row) => bytes(row.body_bytes) },
        { head: "Body", cell: (row) => <span class="preview-text">{row.preview === null ? "no text" : visible(row.preview)}</span> },
        ...(action ? [{ head: "Again", cell: action }] : []),
      ]}
    />
  );
}

export function MessageDialog({ row, onClose }: { row: MessageRow; onClose: () => void }) {
  const [message, set] = useState<Message | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    get<Message>(`message?${query({ topic: row.topic, queue: row.queue, offset: row.offset })}`, stop.signal)
      .then(set)
      .catch((error) => {
        if (!stop.signal.aborted) setError(describe(error));
      });
    return () => stop.abort();
  }, [row]);
  return (
    <Dialog title="Message" onClose={onClose} wide>
      {error !== null && (
        <p class="error" role="alert">
          {sentence(error)}
        </p>
      )}
      {message === null ? error === null && <p class="empty loading">Loading the message&hellip;</p> : <MessageDetail message={message} />}
    </Dialog>
  );
}

function MessageDetail({ message }: { message: Message }) {
  const facts: [string, string | null][] = [
    ["Topic", message.topic],
    ["Place", `queue ${message.queue}, offset ${count(message.offset)}, shard ${message.shard}`],
    ["Id", message.id],
    ["Unique id", message.unique_id],
    ["Stored", moment(message.store_time_ms)],
    ["Born", moment(message.born_time_ms)],
    ["Tag", message.tag || null],
    ["Keys", message.keys || null],
    ["Was in", message.origin_topic],
    ["Deliveries", message.deliveries],
    ["Compressed", message.encoding],
  ];
  return (
    <>
      <dl class="facts">
        {facts
          .filter((fact): fact is [string, string] => fact[1] !== null)
          .map(([label, value]) => (
            <div key={label} class={value.length > 16 ? "long" : ""}>
              <dt>{label}</dt>
              <dd>{visible(value)}</dd>
            </div>
          ))}
      </dl>
      <Body message={message} />
      {message.properties.length > 0 && (
        <details open={message.properties.length < 8}>
          <summary>{plural(message.properties.length, "property", "properties")}</summary>
          <dl class="facts">
            {message.properties.map(([label, value], at) => (
              <div key={`${label} ${at}`} class={value.length > 16 ? "long" : ""}>
                <dt>{visible(label)}</dt>
                <dd>{visible(value)}</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </>
  );
}

function Body({ message }: { message: Message }) {
  const raw = useMemo(() => fromBase64(message.body_base64), [message]);
  const text = useMemo(() => asText(raw), [raw]);
  const json = useMemo(() => (text === null ? null : asJson(text)), [text]);
  const [view, set] = useState<View>(json !== null ? "json" : text !== null ? "text" : "hex");
  const views: [View, string][] = [["text", "Text"], ["json", "JSON"], ["hex", "Hex"]];
  const shown = view === "hex" ? asHex(raw) : view === "json" ? json : text;
  return (
    <section class="message-body" aria-label="Body">
      <header>
        <Tabs<View> label="Show the body as" names={views} chosen={view} choose={set} />
        <span class="hint">{bytes(raw.length)}</span>
        {shown !== null && <Copy text={shown} what="Body" />}
      </header>
      {message.body_unreadable !== null && <p class="error">{`As it is stored, since it cannot be made readable: ${message.body_unreadable}`}</p>}
      {shown === null ? (
        <Empty>{view === "json" ? "This body is no JSON." : "This body is no text in UTF-8: look at it as hex."}</Empty>
      ) : shown === "" ? (
        <Empty>The body is empty.</Empty>
      ) : (
        <pre tabIndex={0} aria-label="Body of the message">
          {view === "hex" ? shown : visible(shown)}
        </pre>
      )}
    </section>
  );
}
