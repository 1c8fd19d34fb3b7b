// What the broker's console answers, and how it is asked. `src/console` of the broker makes these documents; nothing here is ever
// shown as anything but text.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

export interface Session {
  version: string;
  node: string;
  /** What RocketMQ's clients know the node by. */
  name: string;
  may_change: boolean;
  /** Why not, and what would let one. */
  read_only_because: string | null;
  /** Whose access key it is. */
  key: string | null;
}

/** Nanoseconds. */
export interface Stage {
  stage: string;
  count: number;
  p50: number;
  p90: number;
  p99: number;
  p99_9: number;
  max: number;
}

export interface Shard {
  shard: number;
  core: number | null;
  /** `ok`, or why it takes no messages. */
  state: string;
  counters: Record<string, number>;
  latency_ns: Stage[];
}

export interface Node {
  version: string;
  node: string | null;
  level: string;
  resident_bytes: number;
  shards: Shard[];
}

/** `age`: milliseconds are said beside it. */
export type Retention = "default" | "none" | "age";

export type Kind = "user" | "retry" | "dead_letters";

export interface TopicRow {
  topic: string;
  kind: Kind;
  queue_count: number;
  retention: Retention;
  retention_ms: number | null;
  level: string | null;
  permission: string;
  messages: number;
  /** All that was ever stored. */
  stored: number;
  /** Per second; `null` until there were two looks. */
  in_rate: number | null;
  in_bytes_rate: number | null;
  /** Each group that got a message counts. */
  out_rate: number | null;
  groups: number;
}

export interface Page<Row> {
  /** Of those that match. */
  total: number;
  rows: Row[];
}

export interface Receiver {
  topic: string;
  protocol: string;
  filter: string;
  ordered: boolean;
  active: number;
  seen_age_ms: number;
}

export interface Reader {
  client: string;
  language: string;
  version: number;
  address: string;
  broadcasts: boolean;
  subscriptions: { topic: string; expression: string }[];
}

export interface Topic {
  topic: string;
  kind: Kind;
  id: number;
  queue_count: number;
  retention: Retention;
  retention_ms: number | null;
  level: string | null;
  permission: string;
  queues: { queue: number; shard: number; first_offset: number; end_offset: number }[];
  groups: { group: string; members: number; receivers: Receiver[]; readers: Reader[] }[];
  /** `null`: this key may not know who consumes. */
  consumers_left_out: number | null;
}

export interface GroupRow {
  group: string;
  /** Those who own queues, receives under way, and RocketMQ's own clients. */
  members: number;
  receivers: number;
  readers: number;
  topics: number;
  lag: number;
  leased: number;
  waiting: number;
  dead_letters: number;
  out_rate: number | null;
}

export interface Member {
  member: string;
  /** `null`: it stands for all who receive. */
  protocol: string | null;
  topics: string[];
  queues: { topic_id: number; queue: number }[];
  heartbeat_age_ms: number;
}

export interface GroupQueue {
  topic: string;
  queue: number;
  committed: number | null;
  end_offset: number;
  lag: number;
  leased: number;
  waiting: number;
  dead_letters: number;
  member: string | null;
}

export interface Group {
  group: string;
  generation: number;
  lag: number;
  leased: number;
  waiting: number;
  dead_letters: number;
  /** The sum of its places, so that two looks tell a rate. */
  passed: number;
  oldest_unread_ms: number | null;
  /** Why shards give it nothing new. */
  refused: string[];
  inconsistent_topics: string[];
  /** `null`: as the broker has it. */
  settings: { deliveries_max: number | null; lease_ms: number | null; ordered_lease_ms: number | null };
  members: Member[];
  receivers: Receiver[];
  readers: Reader[];
  queues: GroupQueue[];
}

export interface MessageRow {
  topic: string;
  queue: number;
  offset: number;
  shard: number;
  position: string;
  index: number;
  id: string | null;
  unique_id: string | null;
  keys: string;
  tag: string;
  born_time_ms: number;
  store_time_ms: number;
  body_bytes: number;
  /** The beginning of the body, where that is text. */
  preview: string | null;
  /** The topic of a dead letter before it was one, and how often it was delivered. */
  origin_topic: string | null;
  deliveries: string | null;
  /** Of a dead letter: it was sent once more, and is none any more. */
  redriven?: boolean;
}

export interface Messages {
  messages: MessageRow[];
  /** Where to go on, when there are more. */
  next: string | null;
  complete: boolean;
}

export interface Message extends MessageRow {
  properties: [string, string][];
  body_base64: string;
  encoding: string | null;
  /** Why the body is as it is stored. */
  body_unreadable: string | null;
}

export interface ResetPreview {
  queues: { queue: number; committed: number | null; to: number; first_offset: number; end_offset: number }[];
}

export interface DeadLetters {
  group: string;
  topic: string;
  messages: number;
}

export interface Redriven {
  outcomes: ({ outcome: "moved"; queue: number; offset: number } | { outcome: "before" | "gone" })[];
  /** Why the next one was not sent, and nothing after it. */
  stopped: string | null;
}

export interface Published {
  topic: string;
  queue: number;
  offset: number;
  id: string | null;
  unique_id: string;
  level: string;
}

export type Protocol = "native" | "http" | "remoting";

/** Nanoseconds. */
export interface Spread extends Stage {
  mean: number;
}

/** Requests of one kind about a topic. */
export interface KindLatency {
  protocol: Protocol;
  request: string;
  total_ns: Spread;
  stages_ns: Spread[];
  curve: { share: number; ns: number }[];
}

export interface Latency {
  topic: string;
  measured_ns: number;
  requests: KindLatency[];
}

export interface SlowRequest {
  answered: string;
  shard: number;
  protocol: Protocol;
  request: string;
  topic: string | null;
  queue: number | null;
  offset: number | null;
  client: string | null;
  /** The broker's part. */
  total_ns: number;
  stages_ns: Record<string, number>;
  /** What the shard did meanwhile; 0: it was a moment. */
  meanwhile_ns: Record<string, number>;
}

/** A request that was refused, with the broker's words for it. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** The header that no form and no page of another origin can send without being asked. */
const OURS = { "X-Turbopump-Console": "1" };
const PATIENCE_MS = 20_000;

async function call<T>(path: string, init: RequestInit, signal?: AbortSignal): Promise<T> {
  const patience = AbortSignal.timeout(PATIENCE_MS);
  const both = signal ? AbortSignal.any([signal, patience]) : patience;
  const answer = await fetch(`api/${path}`, { ...init, signal: both, credentials: "same-origin" });
  const text = await answer.text();
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    throw new Refused(`the broker answered ${answer.status} without a document`, answer.status);
  }
  if (answer.ok) return document as T;
  const said = (document as { error?: { message?: unknown } }).error?.message;
  throw new Refused(typeof said === "string" ? said : `the broker answered ${answer.status}`, answer.status);
}

export const get = <T>(path: string, signal?: AbortSignal) =>
  // What has not changed is not sent again: the browser asks with the tag of what it has.
  call<T>(path, { headers: OURS, cache: "no-cache" }, signal);

export const post = <T>(path: string, body: unknown) =>
  call<T>(path, { method: "POST", headers: { ...OURS, "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const query = (parameters: Record<string, string | number | null | undefined>) => {
  const said = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(said.map(([name, value]) => [name, String(value)])).toString();
};

export const name = encodeURIComponent;

export interface Live<T> {
  data: T | null;
  /** What came before `data`, and how many milliseconds before, to tell rates. */
  before: T | null;
  elapsed: number;
  error: string | null;
  status: number | null;
  refresh: () => void;
}

interface State<T> {
  path: string | null;
  data: T | null;
  at: number;
  before: T | null;
  elapsed: number;
  error: Error | null;
}

const NOTHING = { path: null, data: null, at: 0, before: null, elapsed: 0, error: null };

/** Asks again and again while the page is looked at; less often while it fails. `null`: nothing is asked. */
export function useLive<T>(path: string | null, interval_ms = 2_000): Live<T> {
  const [state, set] = useState<State<T>>(NOTHING);
  const again = useRef<() => void>(() => {});
  useEffect(() => {
    if (path === null) return;
    const stop = new AbortController();
    let timer = 0;
    let failures = 0;
    let busy = false;
    let barred = false;
    const ask = async () => {
      clearTimeout(timer);
      if (busy || stop.signal.aborted) return;
      if (document.hidden) return;
      busy = true;
      try {
        const data = await get<T>(path, stop.signal);
        failures = 0;
        barred = false;
        const at = performance.now();
        set((last) => {
          const goes_on = last.path === path && last.data !== null;
          return { path, data, at, before: goes_on ? last.data : null, elapsed: goes_on ? at - last.at : 0, error: null };
        });
      } catch (error) {
        if (stop.signal.aborted) return;
        failures += 1;
        // A key that is not the right one is not tried again by itself: the broker counts that.
        barred = error instanceof Refused && error.status === 401;
        set((last) => ({ ...(last.path === path ? last : { ...NOTHING, path }), error: error as Error }));
      } finally {
        busy = false;
      }
      if (!stop.signal.aborted && !barred) timer = setTimeout(ask, Math.min(interval_ms * 2 ** Math.min(failures, 3), 15_000));
    };
    again.current = ask;
    const looked_at = () => {
      if (!document.hidden) void ask();
    };
    document.addEventListener("visibilitychange", looked_at);
    void ask();
    return () => {
      stop.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", looked_at);
    };
  }, [path, interval_ms]);
  const refresh = useCallback(() => again.current(), []);
  const current = state.path === path;
  const error = current ? state.error : null;
  return {
    data: current ? state.data : null,
    before: current ? state.before : null,
    elapsed: current ? state.elapsed : 0,
    error: error ? describe(error) : null,
    status: error instanceof Refused ? error.status : null,
    refresh,
  };
}

/** An error in words. */
export function describe(error: unknown): string {
  if (error instanceof Refused) return error.message;
  if (error instanceof DOMException && error.name === "TimeoutError") return "the broker did not answer in time";
  return "the broker cannot be reached";
}
