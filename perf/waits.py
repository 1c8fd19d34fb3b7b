#!/usr/bin/env python3
"""What fetches cost that wait: `python3 perf/waits.py TURBOPUMP DIR [WAITS CONNECTIONS ...]`.

One shard on core 0, clients on core 1. Of each pair of numbers: so many fetches wait, over so many connections; then memory of the
broker and its core time while nothing comes, and while one message calls them all. One JSON object a line.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/clients/native-python"))
import client  # noqa: E402
from client import Connection  # noqa: E402

IDLE_SECONDS = 10
TICKS = os.sysconf("SC_CLK_TCK")


def start(turbopump, directory):
    shutil.rmtree(directory, ignore_errors=True)
    command = [turbopump, "serve", "--data", directory, "--listen", "127.0.0.1:0", "--shards", "1", "--cores", "0",
               "--segment-bytes", "16MiB"]
    broker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    address = None
    for line in broker.stdout:
        found = re.search(r"shard 0 on core .* listens on (\S+)", line)
        address = found.group(1) if found else address
        if line.startswith("ready"):
            break
    threading.Thread(target=broker.stdout.read, daemon=True).start()
    return broker, address


def resident(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) * 1024


def core_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(turbopump, directory, waits, count):
    broker, address = start(turbopump, directory)
    os.sched_setaffinity(0, {1})
    pid = broker.pid
    connections = [Connection(address) for _ in range(count)]
    topic = connections[0].create_topic("waits", 16)
    time.sleep(3)
    before, began = resident(pid), core_seconds(pid)
    asked = []
    for number in range(waits):
        connection = connections[number % count]
        fields = {0: ("u32", topic), 1: ("u32", number % 16), 2: ("u64", 0), 5: ("u32", 60_000), 6: ("u64", 0)}
        asked.append((connection, connection.send(client.FETCH, fields)))
    # An answer to what was sent last shows that all are there.
    for connection in connections:
        connection.route("waits")
    waiting, idle = resident(pid), core_seconds(pid)
    time.sleep(IDLE_SECONDS)
    idled = core_seconds(pid)
    for queue in range(16):
        connections[0].base_offset(connections[0].send_batch(topic, queue, [{"body": "news"}]))
    for connection, correlation in asked:
        connection.wait(correlation, client.FETCHED)
    called = core_seconds(pid)
    print(json.dumps({
        "waits": waits, "connections": count, "bytes_a_wait": round((waiting - before) / waits),
        "microseconds_to_begin": round((idle - began) * 1e6 / waits, 1),
        "core_share_while_waiting": round((idled - idle) / IDLE_SECONDS, 4),
        "microseconds_to_answer": round((called - idled) * 1e6 / waits, 1), "resident_bytes": resident(pid)}), flush=True)
    for connection in connections:
        connection.close()
    broker.send_signal(signal.SIGTERM)
    broker.wait(timeout=30)
    os.sched_setaffinity(0, {0, 1})
    shutil.rmtree(directory)


def main():
    turbopump, directory, *numbers = sys.argv[1:]
    numbers = [int(number) for number in numbers] or [1_000, 4, 10_000, 40]
    for waits, count in zip(numbers[::2], numbers[1::2]):
        measure(turbopump, os.path.join(directory, "waits-data"), waits, count)


if __name__ == "__main__":
    main()
