import { useEffect, useState } from "preact/hooks";
import { type Group, type GroupQueue, type GroupRow, type Page, type ResetPreview, describe, get, name, post, query, useLive } from "../api";
import { visible } from "../body";
import { age, count, forInput, perSecond, plural, rate, short } from "../format";
import { type Route, link, replace } from "../router";
import { Awaited, Badge, Card, Dialog, Field, Barred, Filter, NONE, Table, Tabs, Tile, sentence, useMayChange, useNotice, useSettled } from "../ui";
import { Pager, Protocol, receivers } from "./topics";

const PAGE = 50;

/** Who consumes for a group now, whatever they speak. */
export const consumers = (group: GroupRow) => group.members + group.receivers + group.readers;

/** Whether it is behind, and nobody does anything about it: who receives now and then is not there between two receives. */
export const isLeft = (group: GroupRow) => consumers(group) === 0 && group.lag > 0 && group.out_rate === 0;

/** Those who own queues, each by itself. */
const owners = (group: Group) => group.members.filter((one) => one.protocol !== null);

const consumersOf = (group: Group) =>
  owners(group).length + group.readers.length + group.receivers.reduce((sum, one) => sum + Math.max(1, one.active), 0);

/** What is wrong with a group, in words. */
function trouble(group: Group): string[] {
  const found = [...group.refused];
  if (group.inconsistent_topics.length > 0) {
    const topics = group.inconsistent_topics.join(", ");
    found.push(`Its consumers ask for different messages of ${topics}: what one of them leaves out is lost to the others.`);
  }
  if (consumersOf(group) === 0 && group.lag > 0) found.push(`It is ${plural(group.lag, "message")} behind, and nobody consumes.`);
  return found;
}

export function GroupState({ group }: { group: GroupRow }) {
  if (consumers(group) === 0) {
    if ((group.out_rate ?? 0) > 0) return <Badge>now and then</Badge>;
    return <Badge tone={isLeft(group) ? "bad" : "plain"}>nobody now</Badge>;
  }
  return (
    <span class="badges">
      {group.members > 0 && <Badge tone="accent">{plural(group.members, "member")}</Badge>}
      {group.receivers > 0 && <Badge tone="accent">{plural(group.receivers, "receiver")}</Badge>}
      {group.readers > 0 && <Badge tone="accent">{plural(group.readers, "RocketMQ client")}</Badge>}
    </span>
  );
}

export function GroupsPage({ route }: { route: Route }) {
  const [filter, setFilter] = useState(route.search.get("filter") ?? "");
  const first = Math.max(0, Number(route.search.get("first") ?? 0) || 0);
  const settled = useSettled(filter);
  const sort = route.search.get("sort") ?? "name";
  const address = (first: number, by = sort) => link(["groups"], { filter: settled, sort: by, first: first ? String(first) : null });
  useEffect(() => {
    if ((route.search.get("filter") ?? "") !== settled) replace(address(0));
  }, [settled]);
  const live = useLive<Page<GroupRow>>(`groups?${query({ filter: settled, sort, first, count: PAGE })}`);
  return (
    <>
      <h1>Groups</h1>
      <div class="tools">
        <Filter value={filter} set={setFilter} label="Filter by name" placeholder="Part of a name" />
      </div>
      <Card>
        <Awaited live={live} what="groups">
          {(data) => (
            <>
              <GroupTable page={data} filtered={settled !== ""} sort={sort} setSort={(sort) => replace(address(0, sort))} />
              <Pager first={first} shown={data.rows.length} total={data.total} at={address} />
            </>
          )}
        </Awaited>
      </Card>
    </>
  );
}

function GroupTable({ page, filtered, sort, setSort }: { page: Page<GroupRow>; filtered: boolean; sort: string; setSort: (sort: string) => void }) {
  return (
    <Table<GroupRow>
      label="Groups"
      rows={page.rows}
      of={(row) => row.group}
      sort={sort}
      setSort={setSort}
      empty={filtered ? "No group has that in its name." : "No group consumes anything yet."}
      columns={[
        { head: "Group", main: true, by: "name", cell: (row) => <a href={link(["groups", row.group])}>{row.group}</a> },
        { head: "Consumers", by: "consumers", cell: (row) => <GroupState group={row} /> },
        { head: "Behind", number: true, by: "lag", cell: (row) => count(row.lag) },
        { head: "Out /s", number: true, by: "out", cell: (row) => rate(row.out_rate) },
        { head: "Leased", number: true, minor: true, by: "leased", cell: (row) => count(row.leased) },
        { head: "Waiting", number: true, minor: true, by: "waiting", cell: (row) => count(row.waiting) },
        { head: "Dead letters", number: true, by: "dead_letters", cell: (row) => count(row.dead_letters) },
      ]}
    />
  );
}

export function GroupPage({ group }: { group: string }) {
  const live = useLive<Group>(`groups/${name(group)}`);
  const may = useMayChange();
  const [resetting, reset] = useState(false);
  return (
    <>
      <div class="title">
        <p class="crumb">
          <a href={link(["groups"])}>Groups</a>
        </p>
        <h1>{group}</h1>
        <div class="actions">
          <a class="button" href={link(["dead-letters"], { group })}>
            Dead letters
          </a>
          <button type="button" onClick={() => reset(true)} disabled={live.data === null}>
            {may ? "Reset its place" : "Preview a reset"}
          </button>
        </div>
      </div>
      <Awaited live={live} what="the group">
        {(data) => <GroupDetail group={data} before={live.before} elapsed={live.elapsed} />}
      </Awaited>
      {resetting && live.data !== null && <ResetDialog group={live.data} onClose={() => reset(false)} onDone={live.refresh} />}
    </>
  );
}

function GroupDetail({ group, before, elapsed }: { group: Group; before: Group | null; elapsed: number }) {
  const { deliveries_max, lease_ms, ordered_lease_ms } = group.settings;
  const settings = [
    deliveries_max !== null ? `at most ${plural(deliveries_max, "delivery", "deliveries")}` : null,
    lease_ms !== null ? `leases of ${age(lease_ms)}` : null,
    ordered_lease_ms !== null ? `in order ${age(ordered_lease_ms)}` : null,
  ].filter(Boolean);
  const found = trouble(group);
  return (
    <>
      {found.length > 0 && (
        <Card title="To look at" class="trouble">
          <ul>
            {found.map((text) => (
              <li key={text}>{text}</li>
            ))}
          </ul>
        </Card>
      )}
      <dl class="tiles">
        <Tile label="Behind" value={group.queues.length === 0 ? NONE : short(group.lag)} unit="messages" note={group.oldest_unread_ms === null ? "" : `the oldest ${age(group.oldest_unread_ms)}`} tone={group.lag > 0 && consumersOf(group) === 0 ? "bad" : "accent"} />
        <Tile label="Out" value={rate(perSecond(group.passed, before?.passed, elapsed))} unit="messages/s" />
        <Tile label="Leased" value={short(group.leased)} note={`${short(group.waiting)} wait to come again`} />
        <Tile label="Dead letters" value={short(group.dead_letters)} tone={group.dead_letters > 0 ? "warn" : "plain"} />
        <Tile label="Consumers" value={count(consumersOf(group))} note={`generation ${group.generation}`} />
        <Tile label="Settings" value={settings.length > 0 ? "its own" : "default"} note={settings.join(", ")} />
      </dl>
      <Card title="Who consumes">
        <Consumers group={group} />
      </Card>
      <Card title="Queues">
        <Queues queues={group.queues} before={before?.queues ?? []} elapsed={elapsed} />
      </Card>
    </>
  );
}

interface ConsumerRow {
  key: string;
  protocol: string;
  who: string;
  where: string;
  what: string;
  seen: string;
}

function Consumers({ group }: { group: Group }) {
  const rows: ConsumerRow[] = [
    ...owners(group).map((one) => ({
      key: `member ${one.member}`,
      protocol: "native",
      who: visible(one.member),
      where: plural(one.queues.length, "queue"),
      what: one.topics.join(", "),
      seen: `${age(one.heartbeat_age_ms)} ago`,
    })),
    ...group.receivers.map((one, at) => ({
      key: `receiver ${at}`,
      protocol: one.protocol,
      who: receivers(one),
      where: "",
      what: `${one.topic} ${one.filter}`,
      seen: `${age(one.seen_age_ms)} ago`,
    })),
    ...group.readers.map((one) => ({
      key: `reader ${one.client} ${one.address}`,
      protocol: "remoting",
      who: visible(`${one.client}${one.broadcasts ? ", gets every message" : ""}`),
      where: visible(`${one.address}, ${one.language} ${one.version}`),
      what: visible(one.subscriptions.map((of) => `${of.topic} ${of.expression}`).join(", ")),
      seen: "connected",
    })),
  ];
  return (
    <Table<ConsumerRow>
      label="Consumers"
      rows={rows}
      of={(row) => row.key}
      empty="Nobody consumes for this group now."
      columns={[
        { head: "Client", main: true, cell: (row) => row.who },
        { head: "Protocol", cell: (row) => <Protocol name={row.protocol} /> },
        { head: "Where", minor: true, cell: (row) => row.where || "\u2013" },
        { head: "Consumes", cell: (row) => row.what },
        { head: "Seen", number: true, cell: (row) => row.seen },
      ]}
    />
  );
}

function Queues({ queues, before, elapsed }: { queues: GroupQueue[]; before: GroupQueue[]; elapsed: number }) {
  const key = (queue: GroupQueue) => `${queue.topic} ${queue.queue}`;
  const then = new Map(before.map((queue) => [key(queue), queue.committed]));
  const most = Math.max(...queues.map((queue) => queue.lag));
  const grown = (queue: GroupQueue) => (queue.committed === null ? null : perSecond(queue.committed, then.get(key(queue)), elapsed));
  return (
    <Table<GroupQueue>
      label="Queues of the group"
      rows={queues}
      of={key}
      empty="The group has no place in any queue yet: its first acknowledgement or commit makes one."
      columns={[
        { head: "Topic", main: true, by: (queue) => `${queue.topic} ${String(queue.queue).padStart(6, "0")}`, cell: (queue) => <a href={link(["topics", queue.topic])}>{queue.topic}</a> },
        { head: "Queue", number: true, cell: (queue) => queue.queue },
        {
          head: "Behind",
          number: true,
          by: (queue) => queue.lag,
          cell: (queue) => <Barred value={queue.lag} most={most} tone="warn" />,
        },
        { head: "Out /s", number: true, cell: (queue) => rate(grown(queue)) },
        { head: "Place", number: true, cell: (queue) => (queue.committed === null ? "none" : count(queue.committed)) },
        { head: "End", number: true, cell: (queue) => count(queue.end_offset) },
        { head: "Leased", number: true, minor: true, cell: (queue) => count(queue.leased) },
        { head: "Waiting", number: true, minor: true, cell: (queue) => count(queue.waiting) },
        { head: "Dead", number: true, minor: true, cell: (queue) => count(queue.dead_letters) },
        { head: "Read by", minor: true, cell: (queue) => (queue.member === "%receive" ? "receivers" : visible(queue.member ?? NONE)) },
      ]}
    />
  );
}

type Target = "first" | "last" | "time" | "offset";

function ResetDialog({ group, onClose, onDone }: { group: Group; onClose: () => void; onDone: () => void }) {
  const topics = [...new Set(group.queues.map((queue) => queue.topic))];
  const [topic, setTopic] = useState(topics[0] ?? "");
  const [target, setTarget] = useState<Target>("last");
  const [time, setTime] = useState(forInput(Date.now() - 3_600_000));
  const [queue, setQueue] = useState("0");
  const [offset, setOffset] = useState("0");
  const [preview, setPreview] = useState<{ asked: string; found: ResetPreview } | null>(null);
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const may = useMayChange();
  const notice = useNotice();
  const to = target === "time" ? String(new Date(time).getTime()) : target === "offset" ? offset : target;
  const wanted = { topic, target, to, queue: target === "offset" ? queue : null };
  const asked = query(wanted);
  const current = preview?.asked === asked ? preview.found : null;
  const run = async (what: () => Promise<void>) => {
    setBusy(true);
    setError(null);
    try {
      await what();
    } catch (error) {
      setError(describe(error));
    } finally {
      setBusy(false);
    }
  };
  const look = (event: Event) => {
    event.preventDefault();
    void run(async () => setPreview({ asked, found: await get<ResetPreview>(`groups/${name(group.group)}/reset?${asked}`) }));
  };
  const reset = () =>
    run(async () => {
      await post(`groups/${name(group.group)}/reset`, { ...wanted, queue: wanted.queue === null ? null : Number(wanted.queue) });
      notice(`${group.group} goes on from its new place in ${topic}`);
      onDone();
      onClose();
    });
  return (
    <Dialog title={`Reset ${group.group}`} onClose={onClose} wide>
      <form onSubmit={look}>
        <Field label="Topic">
          <input list="reset-topics" value={topic} required onInput={(event) => setTopic(event.currentTarget.value)} />
          <datalist id="reset-topics">
            {topics.map((topic) => (
              <option key={topic} value={topic} />
            ))}
          </datalist>
        </Field>
        <div class="field">
          <span class="label">Go on</span>
          <Tabs<Target>
            label="Where to go on"
            names={[
              ["last", "after the last"],
              ["first", "at the first"],
              ["time", "at a time"],
              ["offset", "at an offset"],
            ]}
            chosen={target}
            choose={setTarget}
          />
        </div>
        {target === "time" && (
          <Field label="Time" hint="the first message that was stored then or later">
            <input type="datetime-local" step={1} value={time} required onInput={(event) => setTime(event.currentTarget.value)} />
          </Field>
        )}
        {target === "offset" && (
          <div class="row">
            <Field label="Queue">
              <input type="number" min={0} value={queue} required onInput={(event) => setQueue(event.currentTarget.value)} />
            </Field>
            <Field label="Offset">
              <input type="number" min={0} value={offset} required onInput={(event) => setOffset(event.currentTarget.value)} />
            </Field>
          </div>
        )}
        {error !== null && (
          <p class="error" role="alert">
            {sentence(error)}
          </p>
        )}
        {current !== null && <Preview preview={current} />}
        <div class="actions">
          <button type="button" onClick={onClose}>
            Close
          </button>
          <button type="submit" class={current === null ? "primary" : ""} disabled={busy}>
            Preview
          </button>
          {may && (
            <button type="button" class="danger" disabled={busy || current === null} onClick={reset}>
              Reset
            </button>
          )}
        </div>
      </form>
    </Dialog>
  );
}

function Preview({ preview }: { preview: ResetPreview }) {
  const signed = (value: number) => (value > 0 ? `+${count(value)}` : count(value));
  const change = preview.queues.reduce((sum, queue) => sum + queue.to - (queue.committed ?? queue.first_offset), 0);
  const words = change > 0 ? `${plural(change, "message is", "messages are")} passed over` : change < 0 ? `${plural(-change, "message comes", "messages come")} again` : "nothing moves";
  return (
    <div class="preview" role="status">
      <p>
        In all, <b>{words}</b>.
      </p>
      <Table
        label="What a reset does"
        rows={preview.queues}
        of={(queue) => String(queue.queue)}
        empty="The topic has no queues."
        columns={[
          { head: "Queue", main: true, cell: (queue) => queue.queue },
          { head: "Now", number: true, cell: (queue) => (queue.committed === null ? "none" : count(queue.committed)) },
          { head: "Then", number: true, cell: (queue) => count(queue.to) },
          { head: "Change", number: true, cell: (queue) => signed(queue.to - (queue.committed ?? queue.first_offset)) },
          { head: "Left to read", number: true, cell: (queue) => count(queue.end_offset - queue.to) },
        ]}
      />
    </div>
  );
}
