// The slowest requests of the last ten minutes, as the flight recorder of each shard has kept them.
import { type SlowRequest, query, useLive } from "../api";
import { moment, nanoseconds } from "../format";
import { link } from "../router";
import { type Column, Awaited, Card, NONE, Share, Table } from "../ui";
import { TopicChoice } from "./latency_now";

const SHOWN = 30;
/** A stage with less of a request's time than this share is left out. */
const SHARE_MIN = 0.05;
const NOT_OURS = ["receive", "wait"];

export function SlowRequests({ topic, choose }: { topic: string | null; choose: (topic: string | null) => void }) {
  const live = useLive<{ requests: SlowRequest[] }>(`slow?${query({ topic, count: SHOWN })}`, 4_000);
  return (
    <>
      <div class="row choice">
        <TopicChoice topic={topic} choose={choose} none="All topics" />
      </div>
      <Card title="Slowest requests of the last ten minutes">
        <Awaited live={live} what="requests">
          {({ requests }) => <Requests requests={requests} />}
        </Awaited>
      </Card>
      <p class="hint">
        Time is the broker's part of it. That something happened meanwhile does not say that it was the cause: several requests that met the
        same do.
      </p>
    </>
  );
}

function Requests({ requests }: { requests: SlowRequest[] }) {
  const most = Math.max(0, ...requests.map((request) => request.total_ns));
  const columns: Column<SlowRequest>[] = [
    {
      head: "Request",
      cell: (request) => `${request.protocol} ${request.request}`,
      by: (request) => `${request.protocol} ${request.request}`,
      main: true,
    },
    {
      head: "Time",
      cell: (request) => (
        <span class="barred">
          <Share value={request.total_ns} most={most} />
          <span>{nanoseconds(request.total_ns)}</span>
        </span>
      ),
      by: (request) => request.total_ns,
      number: true,
    },
    {
      head: "Topic",
      cell: (request) =>
        request.topic === null ? NONE : <a href={link(["topics", request.topic])}>{request.topic}</a>,
      by: (request) => request.topic ?? "",
      maybe: true,
    },
    { head: "Where it went", cell: (request) => named(where(request)) },
    { head: "Meanwhile", cell: (request) => named(Object.entries(request.meanwhile_ns)), maybe: true },
    { head: "Answered", cell: (request) => moment(Date.parse(request.answered)), by: (request) => request.answered },
    { head: "Client", cell: (request) => request.client ?? NONE, maybe: true, minor: true },
    { head: "Shard", cell: (request) => request.shard, number: true, minor: true },
  ];
  return (
    <Table
      label="Slowest requests"
      columns={columns}
      rows={requests}
      of={(request) => String(requests.indexOf(request))}
      empty="No such request of the last ten minutes is kept."
    />
  );
}

/** The stages that took most, the longest first. */
function where(request: SlowRequest): [string, number][] {
  const ours = Object.entries(request.stages_ns).filter(([stage]) => !NOT_OURS.includes(stage));
  return ours.filter(([, ns]) => ns > 0 && ns >= request.total_ns * SHARE_MIN).sort(([, one], [, other]) => other - one);
}

/** What took no time was a moment. */
const named = (times: [string, number][]) =>
  times.length === 0 ? NONE : times.map(([name, ns]) => (ns > 0 ? `${name} ${nanoseconds(ns)}` : name)).join(", ");
