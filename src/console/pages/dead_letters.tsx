import { useEffect, useState } from "preact/hooks";
import { type DeadLetters, type MessageRow, type Messages, type Page, describe, get, name, query, useLive } from "../api";
import { plural } from "../format";
import { type Route, link } from "../router";
import { Awaited, Barred, Card, Empty, Table } from "../ui";
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
                      cell: (row) => (
<Barred value={row.messages} most={most} tone="bad" />
                      ),
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

function OfGroup({ group }: { group: string }) {
  const [found, set] = useState<Messages | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [open, setOpen] = useState<MessageRow | null>(null);
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
        </div>
      </div>
      <Card title="Newest first" aside={found !== null && plural(found.messages.length, "message")}>
        {error !== null && <Empty>{error.includes("does not exist") ? "This group has no dead letters." : error}</Empty>}
        {found === null ? (
          error === null && <p class="empty loading">Looking&hellip;</p>
        ) : (
          <>
            <MessageTable rows={found.messages} look={setOpen} dead />
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
    </>
  );
}
