// Where the time of a topic's requests goes now: measured for two seconds, again and again while the page is looked at.
import { useEffect, useState } from "preact/hooks";
import { type KindLatency, type Latency, type Page, type Spread, type TopicRow, query, useLive } from "../api";
import { PercentileChart } from "../percentile_chart";
import { nanoseconds, plural, short } from "../format";
import { type Column, Awaited, Card, Empty, Field, Share, Table } from "../ui";

const WINDOW_MS = 2_000;
const PAUSE_MS = 200;

/** What a request's stages are, in the order of its way; `receive` and `wait` are not the broker's time. */
const STAGES: Record<string, string> = {
  parse: "decoding and checking it",
  queue: "its turn behind others, and room",
  work: "looking up, reading, asking other shards",
  append: "in the open group, until that is taken",
  device: "the write of its group",
  flush: "the flush of its group",
  reply: "until its answer is handed to the system",
};

/** A choice of the topics that there are, the busiest first. */
export function TopicChoice({ topic, choose, none }: { topic: string | null; choose: (topic: string | null) => void; none?: string }) {
  const live = useLive<Page<TopicRow>>("topics?kind=user&sort=in&count=200", 10_000);
  const names = live.data?.rows.map((row) => row.topic) ?? [];
  const [first] = names;
  useEffect(() => {
    if (topic === null && none === undefined && first !== undefined) choose(first);
  }, [topic, first]);
  if (topic !== null && !names.includes(topic)) names.unshift(topic);
  return (
    <Field label="Topic">
      <select value={topic ?? ""} onChange={(event) => choose(event.currentTarget.value || null)}>
        {none !== undefined && <option value="">{none}</option>}
        {names.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </Field>
  );
}

export function RequestsNow({ topic, choose }: { topic: string | null; choose: (topic: string | null) => void }) {
  const [paused, pause] = useState(false);
  const path = topic === null ? null : `latency?${query({ topic, ms: WINDOW_MS })}`;
  const live = useLive<Latency>(paused ? null : path, PAUSE_MS);
  // What is shown stays while nothing is asked.
  const [kept, keep] = useState<Latency | null>(null);
  useEffect(() => {
    if (live.data !== null) keep(live.data);
  }, [live.data]);
  const shown = paused && kept?.topic === topic ? { ...live, data: kept, error: null } : live;
  return (
    <>
      <div class="row choice">
        <TopicChoice topic={topic} choose={choose} />
        <button type="button" aria-pressed={paused} onClick={() => pause(!paused)}>
          {paused ? "Go on" : "Pause"}
        </button>
      </div>
      {topic === null ? (
        <Empty>There is no topic yet.</Empty>
      ) : (
        <Awaited live={shown} what="requests: they are measured for two seconds">
          {(latency) => <Kinds latency={latency} />}
        </Awaited>
      )}
    </>
  );
}

function Kinds({ latency }: { latency: Latency }) {
  const seconds = latency.measured_ns / 1e9;
  if (latency.requests.length === 0) {
    return (
      <Card>
        <Empty>
          No request about {latency.topic} was answered within {seconds} s.
        </Empty>
      </Card>
    );
  }
  return (
    <>
      {latency.requests.map((kind) => (
        <Kind key={`${kind.protocol} ${kind.request}`} kind={kind} seconds={seconds} />
      ))}
      <p class="hint">
        Time is the broker's part of it: neither what a client took to send its request, nor what it wanted to wait for messages. Shown is
        what was answered within {seconds} s.
      </p>
    </>
  );
}

function Kind({ kind, seconds }: { kind: KindLatency; seconds: number }) {
  const { total_ns: total } = kind;
  const stages = kind.stages_ns.filter((stage) => stage.stage in STAGES && stage.max > 0);
  const most = Math.max(0, ...stages.map((stage) => stage.mean));
  const time = (head: string, of: (stage: Spread) => number, minor = false): Column<Spread> => ({
    head,
    cell: (stage) => nanoseconds(of(stage)),
    number: true,
    minor,
  });
  const columns: Column<Spread>[] = [
    {
      head: "Stage",
      cell: (stage) => (
        <>
          {stage.stage} <small class="about">{STAGES[stage.stage]}</small>
        </>
      ),
      main: true,
    },
    {
      head: "Mean",
      cell: (stage) => (
        <span class="barred wide">
          <Share value={stage.mean} most={most} />
          <span>{nanoseconds(stage.mean)}</span>
        </span>
      ),
      number: true,
    },
    time("Median", (stage) => stage.p50),
    time("99 %", (stage) => stage.p99),
    time("99.9 %", (stage) => stage.p99_9),
    time("Longest", (stage) => stage.max),
  ];
  const name = `${kind.protocol} ${kind.request}`;
  return (
    <Card
      title={name}
      class="kind"
      aside={
        <>
          {plural(total.count, "request")}, {short(total.count / seconds)}/s, {nanoseconds(total.mean)} each on average
        </>
      }
    >
      <div class="halves">
        <Table label={`Stages of ${name}`} columns={columns} rows={stages} of={(stage) => stage.stage} empty="None of them took any time." />
        <PercentileChart label={name} curve={kind.curve} />
      </div>
    </Card>
  );
}
