// Where requests' time goes: of a topic's now, of the slowest ones, and of all since the start.
import { useState } from "preact/hooks";
import { type Node, type Stage, useLive } from "../api";
import { count, nanoseconds, perSecond, rate } from "../format";
import { type Route, link, replace } from "../router";
import { Awaited, Card, Tabs } from "../ui";
import { RequestsNow } from "./latency_now";
import { SlowRequests } from "./latency_slow";

type View = "now" | "slow" | "all";
const VIEWS: [View, string][] = [
  ["now", "Requests now"],
  ["slow", "Slowest requests"],
  ["all", "Since the start"],
];

export function LatencyPage({ route }: { route: Route }) {
  const topic = route.search.get("topic");
  const view = VIEWS.find(([name]) => name === route.search.get("view"))?.[0] ?? "now";
  const goTo = (search: { topic?: string | null; view?: View }) => replace(link(["latency"], { topic, view, ...search }));
  return (
    <>
      <h1>Latency by stage</h1>
      <div class="tools">
        <Tabs label="What to look at" names={VIEWS} chosen={view} choose={(view) => goTo({ view })} />
      </div>
      {view === "now" && <RequestsNow topic={topic} choose={(topic) => goTo({ topic })} />}
      {view === "slow" && <SlowRequests topic={topic} choose={(topic) => goTo({ topic })} />}
      {view === "all" && <SinceStart />}
    </>
  );
}

/** What the shards' own stages are, in the order of a message's way. */
const STAGES: Record<string, string> = {
  receive: "from the socket until all requests in it were taken",
  parse: "decoding, checking and placing one batch",
  wait_for_group: "until the log takes the group that the batch is in",
  write: "writing one group to the device",
  flush: "flushing it",
  answer: "from the request's bytes to its answer handed to the kernel",
  release: "from the due time of a delayed message until readers see it",
};

/** The scale goes from a microsecond to ten seconds; each power of ten takes the same room. */
const LOW = 3;
const HIGH = 10;
const at = (ns: number) => Math.min(100, Math.max(0, (100 * (Math.log10(Math.max(ns, 1)) - LOW)) / (HIGH - LOW)));

function SinceStart() {
  const live = useLive<Node>("node");
  const [shard, choose] = useState("0");
  return (
    <>
      <Awaited live={live} what="latencies">
        {(node) => {
          const chosen = node.shards.find((one) => String(one.shard) === shard) ?? node.shards[0];
          const before = live.before?.shards.find((one) => one.shard === chosen?.shard);
          return (
            <>
              {node.shards.length > 1 && (
                <div class="tools">
                  <Tabs
                    label="Shard"
                    names={node.shards.map((one) => [String(one.shard), `Shard ${one.shard}`] as [string, string])}
                    chosen={String(chosen?.shard)}
                    choose={choose}
                  />
                </div>
              )}
              <Card
                title="By the shard's own stages, since the start"
                aside={
                  <span class="key">
                    <span>
                      <i class="body" aria-hidden="true" /> median to 99 %
                    </span>{" "}
                    <span>
                      <i class="tail" aria-hidden="true" /> to 99.9 %
                    </span>{" "}
                    <span>
                      <i class="most" aria-hidden="true" /> longest
                    </span>
                  </span>
                }
              >
                <div class="stages">
                  <Axis />
                  {chosen?.latency_ns.map((stage) => {
                    const then = before?.latency_ns.find((one) => one.stage === stage.stage);
                    return <Bar key={stage.stage} stage={stage} perSecond={perSecond(stage.count, then?.count, live.elapsed)} />;
                  })}
                </div>
              </Card>
            </>
          );
        }}
      </Awaited>
    </>
  );
}

function Axis() {
  const powers = Array.from({ length: HIGH - LOW + 1 }, (_, index) => LOW + index);
  return (
    <div class="stage axis" aria-hidden="true">
      <span />
      <span class="scale">
        {powers.map((power) => (
          <i key={power} style={{ left: `${at(10 ** power)}%` }} class={power % 3 === 0 ? "major" : ""}>
            {nanoseconds(10 ** power).replace(/\.0+(?= )/, "")}
          </i>
        ))}
      </span>
      <span />
    </div>
  );
}

function Bar({ stage, perSecond }: { stage: Stage; perSecond: number | null }) {
  const between = (from: number, to: number) => ({ left: `${at(from)}%`, width: `${Math.max(0.6, at(to) - at(from))}%` });
  return (
    <section class="stage" aria-label={stage.stage}>
      <div class="name">
        <h3>{stage.stage.replaceAll("_", " ")}</h3>
        <small>{STAGES[stage.stage] ?? ""}</small>
      </div>
      <span class="track" aria-hidden="true">
        {stage.count > 0 && (
          <>
            <i class="tail" style={between(stage.p50, stage.p99_9)} />
            <i class="body" style={between(stage.p50, stage.p99)} />
            <i class="most" style={{ left: `${at(stage.max)}%` }} />
          </>
        )}
      </span>
      {stage.count === 0 ? (
        <p class="none">nothing yet</p>
      ) : (
        <dl>
          <div>
            <dt>median</dt>
            <dd>{nanoseconds(stage.p50)}</dd>
          </div>
          <div>
            <dt>99 %</dt>
            <dd>{nanoseconds(stage.p99)}</dd>
          </div>
          <div>
            <dt>99.9 %</dt>
            <dd>{nanoseconds(stage.p99_9)}</dd>
          </div>
          <div>
            <dt>longest</dt>
            <dd>{nanoseconds(stage.max)}</dd>
          </div>
          <div>
            <dt>count</dt>
            <dd title={count(stage.count)}>{rate(perSecond)}/s</dd>
          </div>
        </dl>
      )}
    </section>
  );
}
