#!/usr/bin/env python3
"""The table of perf/remoting.sh: medians of each figure of the raw lines, and what ours is of theirs.

remoting.py LINES, each of which begins with `theirs` or `ours` and a label"""
import json
import statistics
import sys

FIGURES = [
    ("messages_per_second", "msg/s", "{:,.0f}"),
    ("latency_us.p50", "p50, us", "{:,.0f}"),
    ("latency_us.p99", "p99, us", "{:,.0f}"),
    ("latency_us.p99_9", "p99.9, us", "{:,.0f}"),
    ("server.core_ns_per_message", "core ns a message", "{:,.0f}"),
    ("errors", "errors", "{:,.0f}"),
]


def figure(found, name):
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, (int, float)) else None


def main():
    values = {}
    for line in open(sys.argv[1]):
        if not line.strip():
            continue
        side, label, text = line.split(" ", 2)
        if not text.startswith("{"):
            print(f"no result: {line.strip()}", file=sys.stderr)
            continue
        for name, _, _ in FIGURES:
            value = figure(json.loads(text), name)
            if value is not None:
                values.setdefault(label, {}).setdefault(name, {}).setdefault(side, []).append(value)
    print("| load | figure | theirs | ours | ratio | spread of ratios |")
    print("| --- | --- | --- | --- | --- | --- |")
    for label, figures in values.items():
        for name, title, form in FIGURES:
            of = figures.get(name, {})
            if not of.get("theirs") or not of.get("ours"):
                continue
            theirs, ours = statistics.median(of["theirs"]), statistics.median(of["ours"])
            if not theirs:
                continue
            pairs = [own / other for other, own in zip(of["theirs"], of["ours"]) if other]
            spread = f"{min(pairs):.2f} to {max(pairs):.2f}"
            print(f"| {label} | {title} | {form.format(theirs)} | {form.format(ours)} | {ours / theirs:.2f} | {spread} |")


main()
