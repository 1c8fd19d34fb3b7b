#!/usr/bin/env python3
"""What clients without keys can make a broker do, in figures.

    python3 perf/abuse.py BINARY DIR [part ...]

BINARY is a release build of turbopump, DIR a folder for its data, which is emptied. Parts: receives, connects, properties,
polls; all of them without any. Prints a table for each. The broker has one shard, and nothing is pinned: the load and the
client whose times are taken run beside it, so these are figures of behaviour, not of speed.
"""

import collections
import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time

NATIVE, HTTP = "127.0.0.1:21911", ("127.0.0.1", 21080)
PATIENCE = 120


class Broker:
    """One running broker."""

    def __init__(self, binary, data, *flags):
        self.binary, self.data = binary, data
        began = time.monotonic()
        self.process = subprocess.Popen(
            [binary, "serve", "--data", data, "--listen", NATIVE, "--http", "%s:%d" % HTTP, "--shards", "1", *flags],
            stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.strip() == "ready":
                break
        else:
            raise SystemExit("the broker does not start")
        self.started_in = time.monotonic() - began

    def run(self, *arguments, given=None):
        done = subprocess.run([self.binary, *arguments, "--server", NATIVE], input=given, capture_output=True)
        if done.returncode:
            raise SystemExit("%s: %s" % (arguments, done.stderr.decode()))
        return done.stdout

    def counters(self):
        return json.loads(self.run("status", "-o", "json"))["shards"][0]["counters"]

    def resident(self, name="VmRSS"):
        with open("/proc/%d/status" % self.process.pid) as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name + ":")) / 1024

    def forget_peak(self):
        with open("/proc/%d/clear_refs" % self.process.pid, "w") as file:
            file.write("5")

    def end(self, kill=False):
        self.process.kill() if kill else self.process.terminate()
        self.process.wait()


class Client:
    """One HTTP connection, one request at a time."""

    def __init__(self):
        self.stream = socket.create_connection(HTTP, PATIENCE)
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, method, path, body=b""):
        head = "%s %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (method, path, len(body))
        self.stream.sendall(head.encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.read()
        head, body = answer.split(b"\r\n\r\n", 1)
        fields = head.lower()
        if b"content-length: " in fields:
            length = int(fields.split(b"content-length: ")[1].split(b"\r\n")[0])
            pieces, had = [body], len(body)
            while had < length:
                pieces.append(self.read())
                had += len(pieces[-1])
            body = b"".join(pieces)
        return int(head[9:12]), body

    def read(self):
        piece = self.stream.recv(1 << 18)
        if not piece:
            raise SystemExit("the connection ended")
        return piece


def message(body, properties=""):
    properties = properties and "<Properties>%s</Properties>" % properties
    return ("<Message><MessageBody>%s</MessageBody>%s</Message>" % (body, properties)).encode()


def quantile(times, share):
    return sorted(times)[min(len(times) - 1, int(share * len(times)))] * 1000


def others(stop, results):
    """Publishes one message after the other until told to stop."""
    client, times = Client(), []
    while not stop.is_set():
        began = time.monotonic()
        status, _ = client.ask("POST", "/topics/others/messages", message("of another"))
        assert status == 201, status
        times.append(time.monotonic() - began)
    results.put(times)


class Others:
    """A good client in a process of its own, for as long as the block lasts."""

    def __enter__(self):
        self.stop, self.results = multiprocessing.Event(), multiprocessing.Queue()
        self.process = multiprocessing.Process(target=others, args=(self.stop, self.results))
        self.process.start()
        time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.times = self.results.get()
        self.process.join()


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def receives(binary, data):
    """New group names and a tag that nobody has: nothing may be kept of it."""
    broker = Broker(binary, data)
    broker.run("topic", "create", "wide", "--queues", "4096")
    # One message a batch: queues take turns.
    broker.run("produce", "wide", "--batch", "1", given=b"".join(b"line %d\n" % number for number in range(8_192)))
    queues = json.loads(broker.run("topic", "describe", "wide", "-o", "json"))["queues"]
    assert all(queue["messages"] == 2 for queue in queues), "a queue has none"
    broker.end()
    broker = Broker(binary, data)
    before, resident = broker.counters(), broker.resident()
    client, statuses, began = Client(), {}, time.monotonic()
    for number in range(1400):
        path = "/topics/wide/messages?consumer=g%d&numOfMessages=16&tag=nobody-has-it" % number
        status, _ = client.ask("GET", path)
        statuses[status] = statuses.get(status, 0) + 1
    took = time.monotonic() - began
    after, resident_after = broker.counters(), broker.resident()
    time.sleep(20)
    idle = broker.counters()
    row("1,400 receives", statuses, "%.1f s" % took)
    row("log written meanwhile", "%d bytes" % (after["log_bytes_written"] - before["log_bytes_written"]), "")
    row("log written in 20 s after", "%d bytes" % (idle["log_bytes_written"] - after["log_bytes_written"]), "")
    row("pairs, groups that are kept", idle["lease_pairs"], idle["lease_groups"])
    row("resident before, after", "%d MiB" % resident, "%d MiB" % resident_after)
    broker.end()
    broker = Broker(binary, data)
    row("start after a stop", "%.2f s" % broker.started_in, "%d MiB" % broker.resident())
    broker.end(kill=True)
    broker = Broker(binary, data)
    row("start after SIGKILL", "%.2f s" % broker.started_in, "%d MiB" % broker.resident())
    broker.end()


def connect(rate, seconds, keep):
    """Connects at this rate without waiting for the outcome; keeps as many open, or none. Returns how many were begun."""
    kept, count, began = collections.deque(), 0, time.monotonic()
    while (since := time.monotonic() - began) < seconds:
        while count < rate * min(since, seconds):
            stream = socket.socket()
            stream.setblocking(False)
            stream.connect_ex(HTTP)
            kept.append(stream)
            count += 1
            while len(kept) > keep:
                kept.popleft().close()
        time.sleep(0.0005)
    return count


def connects(binary, data):
    """Connections that ask for nothing, and what others notice."""
    broker = Broker(binary, data)
    broker.run("topic", "create", "others")
    with Others() as alone:
        time.sleep(5)
    base = quantile(alone.times, 0.99)
    row("nobody else", "", "%.1f ms" % quantile(alone.times, 0.5), "%.1f ms" % base, "1.0")
    for label, keep in [("connect and close", 0), ("connect and say nothing", 4000)]:
        with Others() as beside:
            accepted = broker.counters()["connections_accepted"]
            count = connect(10_000, 10, keep)
            accepted = broker.counters()["connections_accepted"] - accepted
        p99 = quantile(beside.times, 0.99)
        row(label, "%d/s, %d/s accepted" % (count / 10, accepted / 10), "%.1f ms" % quantile(beside.times, 0.5), "%.1f ms" % p99, "%.1f" % (p99 / base))
    broker.end()


def properties(binary, data):
    """Sixteen messages with as many properties as fit."""
    broker = Broker(binary, data)
    broker.run("topic", "create", "full", "--queues", "1")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~!@#$%^*()+=;,?/[]{}"
    names = (one + other for one in letters for other in letters)
    text = "".join("%s:x|" % next(names) for _ in range(6142))
    client = Client()
    for number in range(16):
        status, answer = client.ask("POST", "/topics/full/messages", message(number, text))
        assert status == 201, (status, answer)
    times = []
    for number in range(20):
        began = time.monotonic()
        status, answer = client.ask("GET", "/topics/full/messages?consumer=g%d&numOfMessages=16" % number)
        times.append(time.monotonic() - began)
        assert status == 200 and answer.count(b"<Message>") == 16, (status, answer[:500])
    row("16 messages of 6,142 properties, per call", "%.1f ms" % quantile(times, 0.5), "%.1f ms" % max(v * 1000 for v in times))
    broker.end()


def polls(binary, data):
    """A hundred groups wait, and one message comes that escaping makes six times as large."""
    broker = Broker(binary, data)
    broker.run("topic", "create", "others")
    broker.run("topic", "create", "quotes", "--queues", "1")
    outcomes, lock = [], threading.Lock()

    def poll(number):
        client = Client()
        status, answer = client.ask("GET", "/topics/quotes/messages?consumer=g%d&numOfMessages=1&waitseconds=30" % number)
        with lock:
            outcomes.append((status, len(answer), time.monotonic()))

    with Others() as alone:
        time.sleep(5)
    broker.forget_peak()
    resident = broker.resident()
    threads = [threading.Thread(target=poll, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    with Others() as beside:
        published = time.monotonic()
        broker.run("message", "publish", "quotes", "-", given=b'"' * (4 * 1024 * 1024 - 1024))
        for thread in threads:
            thread.join()
    times = [at - published for _, _, at in outcomes]
    statuses = {status: sum(1 for found, _, _ in outcomes if found == status) for status, _, _ in outcomes}
    row("answers", statuses, "%d MiB each" % (max(size for _, size, _ in outcomes) >> 20))
    row("first, last after the publish", "%.1f s" % min(times), "%.1f s" % max(times))
    row("resident before, at most", "%d MiB" % resident, "%d MiB" % broker.resident("VmHWM"))
    for label, run in [("others alone", alone), ("others beside", beside)]:
        row(label + ": p50, p99, slowest", "%.1f ms, %.1f ms" % (quantile(run.times, 0.5), quantile(run.times, 0.99)),
            "%.1f ms" % (max(run.times) * 1000))
    broker.end()


def main():
    binary, folder, *chosen = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for part in [receives, connects, properties, polls]:
        if chosen and part.__name__ not in chosen:
            continue
        data = os.path.join(folder, part.__name__)
        shutil.rmtree(data, ignore_errors=True)
        print("\n%s: %s" % (part.__name__, part.__doc__))
        part(binary, data)


main()
