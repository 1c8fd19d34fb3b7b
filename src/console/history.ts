// What the node's counters said over the last minutes, kept while the console is open, whichever page is looked at.
import type { Node } from "./api";
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

export const MESSAGES_IN = ["messages_produced"];
/** By fetches, and by receives: what RocketMQ's clients pull counts among the fetched ones. */
export const MESSAGES_OUT = ["messages_fetched", "messages_received"];
export const BYTES_IN = ["bytes_produced"];
export const BYTES_OUT = ["bytes_fetched"];
