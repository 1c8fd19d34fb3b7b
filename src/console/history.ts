// What the node's counters said over the last minutes, kept while the console is open, whichever page is looked at.
import type { GroupRow, Node, Page } from "./api";
import { perSecond } from "./format";

/** Looks that are kept: at two seconds each, four minutes. */
export const SLOTS = 120;

interface Look {
  at: number;
  node: string | null;
  counters: Record<string, number>;
}

const looks: Look[] = [];

/** The counters of all shards together. */
export function together(node: Node): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const shard of node.shards) {
    for (const [name, value] of Object.entries(shard.counters)) sums[name] = (sums[name] ?? 0) + value;
  }
  return sums;
}

let noted: Node | null = null;

/** Takes note of a look, once. */
export function note(node: Node) {
  if (node === noted) return;
  noted = node;
  if (looks.at(-1)?.node !== node.node) looks.length = 0;
  looks.push({ at: performance.now(), node: node.node, counters: together(node) });
  if (looks.length > SLOTS + 1) looks.splice(0, looks.length - SLOTS - 1);
}

/** The times of looks, and how much the counters grew per second before each. */
export function rates(...lines: string[][]): { times: number[]; lines: (number | null)[][] } {
  const times = looks.slice(1).map((look) => look.at);
  const sum = (look: Look, names: string[]) => names.reduce((total, name) => total + (look.counters[name] ?? 0), 0);
  const line = (names: string[]) =>
    looks.slice(1).map((look, index) => {
      const before = looks[index]!;
      return perSecond(sum(look, names), sum(before, names), look.at - before.at);
    });
  return { times, lines: lines.map(line) };
}

/** By how much a counter has grown over the looks that are kept, and within how many milliseconds. */
export function grown(name: string): { by: number; within: number } {
  const [first, last] = [looks[0], looks.at(-1)];
  if (first === undefined || last === undefined) return { by: 0, within: 0 };
  return { by: Math.max(0, (last.counters[name] ?? 0) - (first.counters[name] ?? 0)), within: last.at - first.at };
}

/** Groups with a backlog that get nothing done, and since when. */
const standing = new Map<string, number>();

/** Takes note of which groups stand still: a backlog, and nothing out since the look before. */
export function noteGroups(page: Page<GroupRow> | null) {
  if (page === null) return;
  const still = page.rows.filter((row) => row.lag > 0 && row.out_rate === 0).map((row) => row.group);
  for (const group of standing.keys()) if (!still.includes(group)) standing.delete(group);
  for (const group of still) if (!standing.has(group)) standing.set(group, performance.now());
}

/** For how many milliseconds a group has stood still, as far as it was looked at. */
export const standstill = (group: GroupRow) => {
  const since = standing.get(group.group);
  return since === undefined ? 0 : performance.now() - since;
};

export const MESSAGES_IN = ["messages_produced"];
/** By fetches, and by receives: what RocketMQ's clients pull counts among the fetched ones. */
export const MESSAGES_OUT = ["messages_fetched", "messages_received"];
export const BYTES_IN = ["bytes_produced"];
export const BYTES_OUT = ["bytes_fetched"];
