import { useEffect, useState } from "preact/hooks";
import { type DeadLetters, type MessageRow, type Messages, type Page, type Redriven, describe, get, name, post, query, useLive } from "../api";
import { plural } from "../format";
import { type Route, link } from "../router";
import { Awaited, Badge, Barred, Card, Dialog, Empty, Field, Table, sentence, useMayChange, useNotice } from "../ui";
import { MessageDialog, MessageTable } from "./messages";
import { Pager } from "./topics";

const PAGE = 50;

export function DeadLettersPage({ route }: { route: Route }) {
  const group = route.search.get("group");
  return group === null ? <All route={route} /> : <OfGroup key={group} group={group} />;
}

function All({ route }: { route: Route }) {
  const first = Math.max(0, Number(route.search.get("first") ?? 0) || 0);
  const live = useLive<Page<DeadLetters>>(`dead-letters?${query({ sort: "messages", first, count: PAGE })}`, 4_000);
  return (
    <>
      <h1>Dead letters</h1>
      <p class="lead">Messages that a group was given as often as it may be, and has never dealt with.</p>
      <Card>
        <Awaited live={live} what="dead letters">
          {(data) => {
            const most = Math.max(...data.rows.map((row) => row.messages));
            return (
              <>
                <Table<DeadLetters>
                  label="Groups with dead letters"
                  rows={data.rows}
                  of={(row) => row.topic}
                  empty="No group has dead letters."
                  columns={[
                    {
                      head: "Group",
                      main: true,
                      by: (row) => row.group,
                      cell: (row) => <a href={link(["dead-letters"], { group: row.group })}>{row.group}</a>,
                    },
                    {
                      head: "Messages",
                      number: true,
                      by: (row) => row.messages,
                      cell: (row) => <Barred value={row.messages} most={most} tone="bad" />,
                    },
                    { head: "Topic", minor: true, cell: (row) => <a href={link(["topics", row.topic])}>{row.topic}</a> },
                  ]}
                />
                <Pager first={first} shown={data.rows.length} total={data.total} at={(first) => link(["dead-letters"], { first: String(first) })} />
              </>
            );
          }}
        </Awaited>
      </Card>
    </>
  );
}

/** As many as the broker sends at once. */
const REDRIVE_MAX = 64;

function OfGroup({ group }: { group: string }) {
  const [found, set] = useState<Messages | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [open, setOpen] = useState<MessageRow | null>(null);
  const [asking, ask] = useState<MessageRow[] | null>(null);
  const may = useMayChange();
  const load = async (before: string | null) => {
    try {
      const page = await get<Messages>(`dead-letters/${name(group)}?${query({ count: 50, before })}`);
      set((last) => (before === null || last === null ? page : { ...page, messages: [...last.messages, ...page.messages] }));
      setError(null);
    } catch (error) {
      setError(describe(error));
    }
  };
  useEffect(() => void load(null), [group]);
  const left = found?.messages.filter((row) => row.redriven === false) ?? [];
  const action = (row: MessageRow) =>
    row.redriven ? (
      <Badge tone="good">sent again</Badge>
    ) : may ? (
      <button type="button" class="small" onClick={() => ask([row])}>
        Send again
      </button>
    ) : (
      "\u2013"
    );
  return (
    <>
      <div class="title">
        <p class="crumb">
          <a href={link(["dead-letters"])}>Dead letters</a>
        </p>
        <h1>{group}</h1>
        <div class="actions">
          <a class="button" href={link(["groups", group])}>
            The group
          </a>
          {may && left.length > 0 && (
            <button type="button" class="primary" onClick={() => ask(left)}>
              {`Send all ${left.length} again`}
            </button>
          )}
        </div>
      </div>
      <Card title="Newest first" aside={found !== null && plural(found.messages.length, "message")}>
        {error !== null && <Empty>{error.includes("does not exist") ? "This group has no dead letters." : sentence(error)}</Empty>}
        {found === null ? (
          error === null && <p class="empty loading">Looking&hellip;</p>
        ) : (
          <>
            <MessageTable rows={found.messages} look={setOpen} action={action} />
            {found.next !== null && (
              <div class="more">
                <button type="button" onClick={() => void load(found.next)}>
                  Older ones
                </button>
              </div>
            )}
          </>
        )}
      </Card>
      {open !== null && <MessageDialog row={open} onClose={() => setOpen(null)} />}
      {asking !== null && <RedriveDialog group={group} rows={asking} onClose={() => ask(null)} onDone={() => void load(null)} />}
    </>
  );
}

/** Sends dead letters once more, to where each was or to one topic. */
function RedriveDialog({ group, rows, onClose, onDone }: { group: string; rows: MessageRow[]; onClose: () => void; onDone: () => void }) {
  const origins = [...new Set(rows.map((row) => row.origin_topic).filter((topic) => topic !== null))];
  const [to, setTo] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const notice = useNotice();
  const send = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    let moved = 0;
    try {
      for (const [target, queue, offsets] of batches(rows, to.trim())) {
        const report = await post<Redriven>(`dead-letters/${name(group)}/redrive`, { queue, offsets, to: target });
        moved += report.outcomes.filter((one) => one.outcome === "moved").length;
        if (report.stopped !== null) throw new Error(report.stopped);
      }
      notice(`${plural(moved, "message")} sent again`);
      onDone();
      onClose();
    } catch (error) {
      const why = error instanceof Error && error.constructor === Error ? error.message : describe(error);
      setError(moved > 0 ? `${plural(moved, "message")} sent, then: ${why}` : why);
      onDone();
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={rows.length === 1 ? "Send a dead letter again" : `Send ${rows.length} dead letters again`} onClose={onClose}>
      <form onSubmit={send}>
        <p>
          Each becomes a new message of its topic with the same body, key, tag and properties, and is no dead letter any more. Every
          group of that topic gets it.
        </p>
        <Field label="To" hint={origins.length > 0 ? `empty: where each was (${origins.join(", ")})` : "the topic"}>
          <input value={to} required={origins.length === 0} placeholder={origins.length === 1 ? origins[0]! : ""} onInput={(event) => setTo(event.currentTarget.value)} />
        </Field>
        {error !== null && (
          <p class="error" role="alert">
            {sentence(error)}
          </p>
        )}
        <div class="actions">
          <button type="button" onClick={onClose}>
            Close
          </button>
          <button type="submit" class="primary" disabled={busy}>
            {rows.length === 1 ? "Send" : `Send ${rows.length}`}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** What is sent at once: messages of one queue to one topic, the oldest first. */
export function batches(rows: MessageRow[], to: string): [string, number, number[]][] {
  const found: [string, number, number[]][] = [];
  const open = new Map<string, [string, number, number[]]>();
  for (const row of [...rows].sort((one, other) => one.offset - other.offset)) {
    const target = to || row.origin_topic;
    if (target === null) throw new Error(`a message does not say which topic it was of: name one`);
    const key = `${row.queue} ${target}`;
    let batch = open.get(key);
    if (batch === undefined || batch[2].length >= REDRIVE_MAX) {
      batch = [target, row.queue, []];
      open.set(key, batch);
      found.push(batch);
    }
    batch[2].push(row.offset);
  }
  return found;
}
