import { useEffect, useState } from "preact/hooks";
import { type Page, type Published, type Receiver, type Topic, type TopicRow, describe, name, post, query, useLive } from "../api";
import { visible } from "../body";
import { age, bytes, count, perSecond, plural, rate, retention, short } from "../format";
import { type Route, link, replace } from "../router";
import { Awaited, Badge, Card, Dialog, Field, Barred, Filter, Table, Tabs, Tile, sentence, useMayChange, useNotice, useSettled } from "../ui";

const PAGE = 50;

const KINDS: ["user" | "dead_letters" | "retry" | "all", string][] = [
  ["user", "Topics"],
  ["dead_letters", "Dead letters"],
  ["retry", "Retries"],
  ["all", "All"],
];

export function TopicsPage({ route }: { route: Route }) {
  const [filter, setFilter] = useState(route.search.get("filter") ?? "");
  const kind = KINDS.find(([kind]) => kind === route.search.get("kind"))?.[0] ?? "user";
  const first = Math.max(0, Number(route.search.get("first") ?? 0) || 0);
  const settled = useSettled(filter);
  const sort = route.search.get("sort") ?? "name";
  const address = (changes: { kind?: string; first?: number; sort?: string }) =>
    link(["topics"], {
      filter: settled,
      kind: changes.kind ?? kind,
      sort: changes.sort ?? sort,
      first: changes.first ? String(changes.first) : null,
    });
  useEffect(() => {
    if ((route.search.get("filter") ?? "") !== settled) replace(address({}));
  }, [settled]);
  const path = `topics?${query({ filter: settled, kind: kind === "all" ? null : kind, sort, first, count: PAGE })}`;
  const live = useLive<Page<TopicRow>>(path);
  return (
    <>
      <h1>Topics</h1>
      <div class="tools">
        <Filter value={filter} set={setFilter} label="Filter by name" placeholder="Part of a name" />
        <Tabs label="Which topics" names={KINDS} chosen={kind} choose={(kind) => replace(address({ kind }))} />
      </div>
      <Card>
        <Awaited live={live} what="topics">
          {(data) => (
            <>
              <TopicTable page={data} filtered={settled !== ""} sort={sort} setSort={(sort) => replace(address({ sort }))} />
              <Pager first={first} shown={data.rows.length} total={data.total} at={(first) => address({ first })} />
            </>
          )}
        </Awaited>
      </Card>
    </>
  );
}

export function Pager({ first, shown, total, at }: { first: number; shown: number; total: number; at: (first: number) => string }) {
  if (total <= shown) return null;
  return (
    <nav class="pager" aria-label="Pages of the list">
      {first > 0 ? <a href={at(Math.max(0, first - PAGE))}>Previous</a> : <span />}
      <span>{`${count(first + 1)}\u2013${count(first + shown)} of ${count(total)}`}</span>
      {first + shown < total ? <a href={at(first + PAGE)}>Next</a> : <span />}
    </nav>
  );
}

export function Permission({ permission }: { permission: string }) {
  return <Badge tone={permission === "read-write" ? "plain" : "warn"}>{permission}</Badge>;
}

function TopicTable({ page, filtered, sort, setSort }: { page: Page<TopicRow>; filtered: boolean; sort: string; setSort: (sort: string) => void }) {
  return (
    <Table<TopicRow>
      label="Topics"
      rows={page.rows}
      of={(row) => row.topic}
      sort={sort}
      setSort={setSort}
      empty={filtered ? "No topic has that in its name." : "No topics of this kind."}
      columns={[
        { head: "Topic", main: true, by: "name", cell: (row) => <a href={link(["topics", row.topic])}>{row.topic}</a> },
        { head: "In /s", number: true, by: "in", cell: (row) => <span title={row.in_bytes_rate === null ? undefined : `${bytes(row.in_bytes_rate)}/s`}>{rate(row.in_rate)}</span> },
        { head: "Out /s", number: true, by: "out", cell: (row) => rate(row.out_rate) },
        { head: "Messages", number: true, by: "messages", cell: (row) => count(row.messages) },
        { head: "Queues", number: true, by: "queues", cell: (row) => count(row.queue_count) },
        { head: "Groups", number: true, by: "groups", cell: (row) => count(row.groups) },
        { head: "Retention", minor: true, cell: (row) => retention(row) },
        { head: "Level", minor: true, cell: (row) => row.level ?? "default" },
        { head: "Permission", cell: (row) => <Permission permission={row.permission} /> },
      ]}
    />
  );
}

export function TopicPage({ topic }: { topic: string }) {
  const live = useLive<Topic>(`topics/${name(topic)}`);
  const may = useMayChange();
  const [publishing, publish] = useState(false);
  return (
    <>
      <div class="title">
        <p class="crumb">
          <a href={link(["topics"])}>Topics</a>
        </p>
        <h1>{topic}</h1>
        <div class="actions">
          <a class="button" href={link(["messages"], { topic })}>
            Look at messages
          </a>
          <a class="button" href={link(["latency"], { topic })}>
            Latency
          </a>
          {may && (
            <button type="button" class="primary" onClick={() => publish(true)}>
              Publish a test message
            </button>
          )}
        </div>
      </div>
      <Awaited live={live} what="the topic">
        {(data) => <TopicDetail topic={data} before={live.before} elapsed={live.elapsed} />}
      </Awaited>
      {publishing && <PublishDialog topic={topic} queues={live.data?.queue_count ?? 1} onClose={() => publish(false)} onDone={live.refresh} />}
    </>
  );
}

const messagesOf = (topic: Topic) => topic.queues.reduce((sum, queue) => sum + queue.end_offset - queue.first_offset, 0);
const storedOf = (topic: Topic) => topic.queues.reduce((sum, queue) => sum + queue.end_offset, 0);

function TopicDetail({ topic, before, elapsed }: { topic: Topic; before: Topic | null; elapsed: number }) {
  const most = Math.max(...topic.queues.map((queue) => queue.end_offset - queue.first_offset));
  const then = new Map(before?.queues.map((queue) => [queue.queue, queue.end_offset]));
  return (
    <>
      <dl class="tiles">
        <Tile label="In" value={rate(perSecond(storedOf(topic), before && storedOf(before), elapsed))} unit="messages/s" tone="accent" />
        <Tile label="Messages" value={short(messagesOf(topic))} note={`${short(storedOf(topic))} ever stored`} />
        <Tile label="Queues" value={count(topic.queue_count)} />
        <Tile label="Groups" value={topic.consumers_left_out === null ? "\u2013" : count(topic.groups.length)} />
        <Tile label="Retention" value={retention(topic)} words note={`level ${topic.level ?? "default"}`} />
        <Tile label="Permission" value={topic.permission} words tone={topic.permission === "read-write" ? "plain" : "warn"} />
      </dl>
      <Card title="Consumed by">
        <Consumers topic={topic} />
      </Card>
      <Card title="Queues">
        <Table
          label="Queues"
          rows={topic.queues}
          of={(queue) => String(queue.queue)}
          empty="The topic has no queues."
          columns={[
            { head: "Queue", main: true, by: (queue) => queue.queue, cell: (queue) => queue.queue },
            { head: "Shard", number: true, by: (queue) => queue.shard, cell: (queue) => queue.shard },
            { head: "In /s", number: true, cell: (queue) => rate(perSecond(queue.end_offset, then.get(queue.queue), elapsed)) },
            { head: "First", number: true, minor: true, cell: (queue) => count(queue.first_offset) },
            { head: "End", number: true, cell: (queue) => count(queue.end_offset) },
            {
              head: "Messages",
              number: true,
              by: (queue) => queue.end_offset - queue.first_offset,
              cell: (queue) => <Barred value={queue.end_offset - queue.first_offset} most={most} />,
            },
          ]}
        />
      </Card>
    </>
  );
}

/** Those who receive, in words: between two receives it is known of them only when the last one was. */
export const receivers = (of: Receiver) =>
  `${of.active > 0 ? plural(of.active, "receiver") : `received ${age(of.seen_age_ms)} ago`}${of.ordered ? ", in order" : ""}`;

interface ConsumerRow {
  key: string;
  group: string;
  protocol: string;
  who: string;
  filter: string;
}

function Consumers({ topic }: { topic: Topic }) {
  const rows: ConsumerRow[] = topic.groups.flatMap((of) => {
    const group = of.group;
    const found: ConsumerRow[] = [];
    if (of.members > 0) found.push({ key: `${group} native`, group, protocol: "native", who: plural(of.members, "member"), filter: "*" });
    of.receivers.forEach((one, at) =>
      found.push({ key: `${group} ${at}`, group, protocol: one.protocol, who: receivers(one), filter: one.filter }),
    );
    of.readers.forEach((one) =>
      found.push({
        key: `${group} ${one.client}`,
        group,
        protocol: "remoting",
        who: visible(`${one.client}, ${one.language}${one.broadcasts ? ", every message" : ""}`),
        filter: visible(one.subscriptions.find((of) => of.topic === topic.topic)?.expression ?? "*"),
      }),
    );
    if (found.length === 0) found.push({ key: group, group, protocol: "", who: "nobody now", filter: "" });
    return found;
  });
  return (
    <>
      <Table<ConsumerRow>
        label="Consumers"
        rows={rows}
        of={(row) => row.key}
        empty={topic.consumers_left_out === null ? "Who consumes is told to keys with admin = true." : "No group consumes this topic."}
        columns={[
          { head: "Group", main: true, cell: (row) => <a href={link(["groups", row.group])}>{row.group}</a> },
          { head: "Protocol", cell: (row) => <Protocol name={row.protocol} /> },
          { head: "Who", cell: (row) => row.who },
          { head: "Filter", cell: (row) => (row.filter ? <code>{row.filter}</code> : "\u2013") },
        ]}
      />
      {topic.consumers_left_out !== null && topic.consumers_left_out > 0 && <p class="hint">{`${plural(topic.consumers_left_out, "more consumer")}: there is no room for them here.`}</p>}
    </>
  );
}

export function Protocol({ name }: { name: string }) {
  if (name === "") return <>&ndash;</>;
  return <Badge tone="accent">{name === "remoting" ? "RocketMQ" : name === "http" ? "HTTP" : name}</Badge>;
}

function PublishDialog({ topic, queues, onClose, onDone }: { topic: string; queues: number; onClose: () => void; onDone: () => void }) {
  const [body, setBody] = useState("");
  const [tag, setTag] = useState("");
  const [keys, setKeys] = useState("");
  const [queue, setQueue] = useState("");
  const [properties, setProperties] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const [published, setPublished] = useState<Published | null>(null);
  const notice = useNotice();
  const send = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const pairs = properties.split("\n").filter((line) => line.trim() !== "");
      const odd = pairs.find((line) => !line.includes("="));
      if (odd !== undefined) throw new Error(`a property is written NAME=VALUE, and not ${odd}`);
      const done = await post<Published>(`topics/${name(topic)}/messages`, {
        body,
        tag,
        keys,
        queue: queue === "" ? null : Number(queue),
        properties: pairs.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
      });
      setPublished(done);
      notice(`Stored in queue ${done.queue} at offset ${done.offset}`);
      onDone();
    } catch (error) {
      setError(error instanceof Error && error.constructor === Error ? error.message : describe(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={`Publish to ${topic}`} onClose={onClose}>
      <form onSubmit={send}>
        <Field label="Body">
          <textarea rows={6} value={body} spellcheck={false} onInput={(event) => setBody(event.currentTarget.value)} />
        </Field>
        <div class="row">
          <Field label="Tag">
            <input value={tag} onInput={(event) => setTag(event.currentTarget.value)} />
          </Field>
          <Field label="Keys" hint="separated by blanks">
            <input value={keys} onInput={(event) => setKeys(event.currentTarget.value)} />
          </Field>
          <Field label="Queue" hint="empty: any">
            <input type="number" min={0} max={queues - 1} value={queue} onInput={(event) => setQueue(event.currentTarget.value)} />
          </Field>
        </div>
        <Field label="Properties" hint="NAME=VALUE, one a line">
          <textarea rows={2} value={properties} spellcheck={false} onInput={(event) => setProperties(event.currentTarget.value)} />
        </Field>
        {error !== null && (
          <p class="error" role="alert">
            {sentence(error)}
          </p>
        )}
        {published !== null && (
          <p class="done">
            Stored, {published.level}: queue {published.queue}, offset {count(published.offset)}.{" "}
            {published.id !== null && <a href={link(["messages"], { by: "id", id: published.id })}>Look at it</a>}
          </p>
        )}
        <div class="actions">
          <button type="button" onClick={onClose}>
            Close
          </button>
          <button type="submit" class="primary" disabled={busy}>
            Publish
          </button>
        </div>
      </form>
    </Dialog>
  );
}

