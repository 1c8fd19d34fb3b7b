import { type GroupRow, type Node, type Page, type Shard, type TopicRow, useLive } from "../api";
import { Chart } from "../chart";
import { age, bytes, count, nanoseconds, perSecond, plural, rate, short } from "../format";
import { BYTES_IN, BYTES_OUT, MESSAGES_IN, MESSAGES_OUT, SLOTS, grown, note, noteGroups, rates, standstill, together } from "../history";
import { link } from "../router";
import { Awaited, Badge, Card, Empty, Share, Table, Tile } from "../ui";
import { GroupState, isLeft } from "./groups";

const SHOWN = 8;

export function OverviewPage() {
  const node = useLive<Node>("node");
  const topics = useLive<Page<TopicRow>>(`topics?kind=user&sort=in&count=${SHOWN}`);
  const groups = useLive<Page<GroupRow>>("groups?sort=lag&count=200");
  return (
    <>
      <h1>Overview</h1>
      <Awaited live={node} what="the node">
        {(data) => (
          <>
            <Trouble node={data} groups={groups.data} />
            <Figures groups={groups.data} node={data} />
          </>
        )}
      </Awaited>
      <div class="columns">
        <Card title="Busiest topics" aside={<a href={link(["topics"])}>All topics</a>}>
          <Awaited live={topics} what="topics">
            {(data) => <BusyTopics page={data} />}
          </Awaited>
        </Card>
        <Card title="Furthest behind" aside={<a href={link(["groups"])}>All groups</a>}>
          <Awaited live={groups} what="groups">
            {(data) => <LateGroups page={data} />}
          </Awaited>
        </Card>
      </div>
      {node.data !== null && (
        <Card title="Shards">
          <Shards node={node.data} before={node.before} elapsed={node.elapsed} />
        </Card>
      )}
    </>
  );
}

function Figures({ node, groups }: { node: Node; groups: Page<GroupRow> | null }) {
  const { times, lines } = rates(MESSAGES_IN, MESSAGES_OUT, BYTES_IN, BYTES_OUT);
  const [messagesIn = [], messagesOut = [], bytesIn = [], bytesOut = []] = lines;
  const counters = together(node);
  const last = (line: (number | null)[]) => line.at(-1) ?? null;
  const lag = groups?.rows.reduce((sum, group) => sum + group.lag, 0);
  const byteRate = (value: number | null) => (value === null ? "\u2013" : `${bytes(value)}/s`);
  return (
    <>
      <dl class="tiles">
        <Tile label="In" value={rate(last(messagesIn))} unit="messages/s" note={byteRate(last(bytesIn))} tone="accent" />
        <Tile label="Out" value={rate(last(messagesOut))} unit="messages/s" note={byteRate(last(bytesOut))} />
        <Tile
          label="Backlog"
          value={lag === undefined ? "\u2013" : short(lag)}
          unit="messages"
          note={groups === null ? "" : plural(groups.total, "group")}
        />
        <Tile label="Dead letters" value={short(counters.messages_dead_lettered ?? 0)} note="since the start" />
        <Tile label="Connections" value={short(counters.connections ?? 0)} note={`${short(counters.requests ?? 0)} requests so far`} />
        <Tile label="Memory" value={bytes(node.resident_bytes)} note={`${plural(node.shards.length, "shard")}, ${node.level}`} />
      </dl>
      <Card title="Messages per second" class="wide">
        <Chart
          unit="messages per second"
          slots={Math.max(SLOTS / 4, Math.min(SLOTS, times.length))}
          times={times}
          lines={[
            { name: "In", tone: "one", values: messagesIn },
            { name: "Out", tone: "two", values: messagesOut },
          ]}
        />
      </Card>
    </>
  );
}

/** A disk with less than this share of its bytes available is told of. */
const DISK_SHARE_MIN = 0.1;
/** Whose consumers have dealt with nothing for so long has to be looked at. */
const STANDSTILL_MS = 20_000;

/** What somebody has to look at, in words. */
function Trouble({ node, groups }: { node: Node; groups: Page<GroupRow> | null }) {
  note(node);
  noteGroups(groups);
  const found: { key: string; text: string; href?: string }[] = [];
  for (const shard of node.shards) {
    if (shard.state !== "ok") found.push({ key: `shard ${shard.shard}`, text: `Shard ${shard.shard} takes no messages: ${shard.state}` });
  }
  const { disk_available_bytes: available, disk_bytes: total } = node.shards[0]?.counters ?? {};
  if (available !== undefined && total !== undefined && available < total * DISK_SHARE_MIN) {
    found.push({ key: "disk", text: `The disk has ${bytes(available)} of ${bytes(total)} left` });
  }
  const stalls = grown("disk_stalls");
  const refused = grown("produce_refused");
  const dead = grown("messages_dead_lettered");
  if (grown("damaged_batches").by > 0) found.push({ key: "damage", text: "Stored bytes do not match their checksum: see the broker's log" });
  if (stalls.by > 0) found.push({ key: "stalls", text: `The disk kept the log waiting: ${plural(stalls.by, "write or flush", "writes and flushes")} took 50 ms or longer within ${age(stalls.within)}` });
  if (refused.by > 0) found.push({ key: "refused", text: `${plural(refused.by, "message")} of producers refused within ${age(refused.within)}` });
  if (dead.by > 0) found.push({ key: "dead", text: `${plural(dead.by, "message became a dead letter", "messages became dead letters")} within ${age(dead.within)}`, href: link(["dead-letters"]) });
  for (const group of groups?.rows ?? []) {
    const stands = standstill(group);
    if (!isLeft(group) && stands < STANDSTILL_MS) continue;
    const why = isLeft(group) ? "nobody consumes" : `its consumers have dealt with nothing for ${age(stands)}`;
    const text = `${group.group} is ${plural(group.lag, "message")} behind, and ${why}`;
    found.push({ key: group.group, text, href: link(["groups", group.group]) });
  }
  if (found.length === 0) return null;
  return (
    <Card title="To look at" class="trouble">
      <ul>
        {found.slice(0, 12).map(({ key, text, href }) => (
          <li key={key}>{href ? <a href={href}>{text}</a> : text}</li>
        ))}
      </ul>
      {found.length > 12 && <p class="hint">{`and ${found.length - 12} more`}</p>}
    </Card>
  );
}

function BusyTopics({ page }: { page: Page<TopicRow> }) {
  const most = Math.max(...page.rows.map((row) => row.in_rate ?? 0));
  if (page.rows.length === 0) return <Empty>No topics yet. A producer, or <code>turbopump topic create</code>, makes the first one.</Empty>;
  return (
    <ol class="ranking">
        {page.rows.map((row) => (
          <li key={row.topic}>
            <a href={link(["topics", row.topic])}>{row.topic}</a>
            <span class="figure">
              {rate(row.in_rate)} <small>/s in</small>
            </span>
            <Share value={row.in_rate ?? 0} most={most} />
            <small>{`${plural(row.messages, "message")} stored, ${rate(row.out_rate)} /s out to ${plural(row.groups, "group")}`}</small>
          </li>
        ))}
    </ol>
  );
}

function LateGroups({ page }: { page: Page<GroupRow> }) {
  const rows = page.rows.slice(0, SHOWN);
  const most = Math.max(...rows.map((row) => row.lag));
  if (rows.length === 0) return <Empty>No group consumes anything yet.</Empty>;
  return (
    <ol class="ranking">
        {rows.map((row) => (
          <li key={row.group}>
            <a href={link(["groups", row.group])}>{row.group}</a>
            <span class="figure">
              {short(row.lag)} <small>behind</small>
            </span>
            <Share value={row.lag} most={most} tone={isLeft(row) ? "bad" : "warn"} />
            <small>
              <GroupState group={row} />
            </small>
          </li>
        ))}
    </ol>
  );
}

function Shards({ node, before, elapsed }: { node: Node; before: Node | null; elapsed: number }) {
  const grown = (shard: Shard, names: string[]) => {
    const then = before?.shards.find((one) => one.shard === shard.shard);
    const sum = (of: Shard) => names.reduce((total, name) => total + (of.counters[name] ?? 0), 0);
    return then ? perSecond(sum(shard), sum(then), elapsed) : null;
  };
  const flush = (shard: Shard) => shard.latency_ns.find((stage) => stage.stage === "flush");
  return (
    <Table<Shard>
      label="Shards"
      rows={node.shards}
      of={(shard) => String(shard.shard)}
      empty="No shards."
      columns={[
        { head: "Shard", main: true, cell: (shard) => shard.shard },
        { head: "State", cell: (shard) => (shard.state === "ok" ? <Badge tone="good">takes messages</Badge> : <Badge tone="bad">{shard.state}</Badge>) },
        { head: "Core", number: true, cell: (shard) => shard.core ?? "\u2013" },
        { head: "In /s", number: true, cell: (shard) => rate(grown(shard, MESSAGES_IN)) },
        { head: "Out /s", number: true, cell: (shard) => rate(grown(shard, MESSAGES_OUT)) },
        { head: "Connections", number: true, cell: (shard) => count(shard.counters.connections ?? 0) },
        { head: "Flush p99", number: true, cell: (shard) => (flush(shard)?.count ? nanoseconds(flush(shard)!.p99) : "\u2013") },
      ]}
    />
  );
}
