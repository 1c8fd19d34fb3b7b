#!/usr/bin/env python3
"""The table of perf/compare.sh: medians of each figure of the raw lines, and what the second is of the first.

compare.py LINES, each of which begins with `before` or `after`"""
import json
import statistics
import sys

# What is read of a line's object, and whether more is better. What only describes a run is left out.
FIGURES = {
    "messages_per_second": True,
    "requests_per_second": True,
    "share": True,
    "latency_us.p50": False,
    "latency_us.p99": False,
    "latency_us.p99_9": False,
    "latency_us.max": False,
    "p50_us": False,
    "ratio": False,
    "lateness_us.p99": False,
    "server.core_ns_per_message": False,
    "server.allocations_per_1000": False,
    "server.syscalls_per_1000": False,
    "server.resident_bytes": False,
    "baseline.device_share": True,
    "baseline.loopback_share": True,
    "baseline.flush_p50_us": None,
    "seconds.lowest_share": True,
    "milliseconds_to_first_answer": False,
    "resident_bytes": False,
}
# Beyond this a difference is marked.
MARKED = 0.03


def figure(found, name):
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, (int, float)) else None


def main():
    path, before, after = sys.argv[1], "before", "after"
    values = {}
    for line in open(path):
        if not line.strip():
            continue
        revision, label, text = line.split(" ", 2)
        if not text.startswith("{"):
            print(f"no result: {line.strip()}", file=sys.stderr)
            continue
        found = json.loads(text)
        label = " ".join(filter(None, [label, found.get("command")]))
        for name in FIGURES:
            value = figure(found, name)
            if value is not None:
                values.setdefault((label, name), {}).setdefault(revision, []).append(value)
    print(f"{'part':<28} {'figure':<28} {before:>14} {after:>14}  {'ratio':>6}  spread of each")
    for (label, name), of in values.items():
        if before not in of or after not in of:
            continue
        first, second = statistics.median(of[before]), statistics.median(of[after])
        if not first:
            continue
        ratio = second / first
        is_worse = FIGURES[name] is not None and (ratio < 1 - MARKED if FIGURES[name] else ratio > 1 + MARKED)
        spread = "  ".join(f"{min(of[of_]):.6g} to {max(of[of_]):.6g}" for of_ in (before, after))
        print(f"{label:<28} {name:<28} {first:>14.6g} {second:>14.6g}  {ratio:>6.3f}{'!' if is_worse else ' '} {spread}")


main()
