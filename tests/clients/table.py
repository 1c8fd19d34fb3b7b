"""Prints what works, client by client, from what the suites have said, and looks whether the README agrees: `table.py SAID [README]`.
A line of SAID is a client, a number of shards and a word for what works, with what of it there is behind it, separated by tabs:
`CLIENT<tab>4<tab>push broadcasting`. Without the latter two it says only that the client was run."""

import sys

COLUMNS = ["send", "pull", "push", "order", "retry", "delay", "transactions", "replies", "filters", "look-up", "keys", "TLS", "kills"]


def read(path):
    """By client, in the order of the file: by column, on how many shards which of it works."""
    rows = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            client, shards, works = line.rstrip("\n").split("\t")
            if not client:
                continue
            row = rows.setdefault(client, {})
            column, _, detail = works.partition(" ")
            if works:
                assert column in COLUMNS, f"{client} says that {works!r} works, which is none of {COLUMNS}"
                row.setdefault(column, {}).setdefault(detail or "yes", set()).add(shards)
    return rows


def cell(works):
    """What works on one shard and on four; what only on one of both, says so."""
    of = {"1": " (one shard)", "4": " (four shards)"}
    shown = [what if len(shards) == len(of) else what + of[min(shards)] for what, shards in sorted(works.items())]
    return ", ".join(shown)


def table(rows):
    lines = [["client", *COLUMNS], ["---"] * (1 + len(COLUMNS))]
    lines += [[client, *(cell(row.get(column, {})) for column in COLUMNS)] for client, row in rows.items()]
    return ["| " + " | ".join(line) + " |" for line in lines]


def tables(path):
    """The lines of a document's tables."""
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.startswith("|")]


def main(said, readme=None):
    shown = table(read(said))
    print("\n".join(shown))
    if not readme:
        return 0
    # Where a tool is missing, its client was not run, and nothing is said of its row.
    stands = tables(readme)
    missing = [line for line in shown if line not in stands]
    if missing:
        print(f"\n{readme} has another table. It lacks, or says otherwise:", *missing, sep="\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
