#!/usr/bin/env python3
"""How late messages come that are delivered later: `python3 perf/lateness.py TURBOPUMP DIR [--messages N] [--pending N]
[--flags=--buffered-io]`.

One shard on core 0, producer and consumer on core 1. Messages are sent over RocketMQ's protocol, one every 5 ms, and how long after
its time each one is there is measured by whoever waits for it: over RocketMQ's protocol (at times, at level 1, and given back with
level 1), over HTTP and natively (at times). Where nobody but the broker knows the time, it is counted from the moment before the
request. One JSON object a line, milliseconds.

--flags are more of what the broker is started with: on a tmpfs, what is left of lateness is not the disk's. With --pending, so many others wait meanwhile, for times from an hour to 30 days ahead: then the lines before say what memory they
take, before and after the broker was killed and started again.
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/clients/native-python"))
from client import Connection  # noqa: E402

SEND, PULL, SEND_BACK = 310, 11, 36
PAUSE = 0.005
AHEAD_MS = 1_500
HOUR_MS = 3_600_000


def now_ms():
    return time.time() * 1000


class Broker:
    def __init__(self, turbopump, directory, flags):
        command = [turbopump, "serve", "--data", directory, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--namesrv", "none",
                   "--shards", "1", "--cores", "0", "--retention-age", "none", *flags]
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if found := re.search(r"shard 0 on core .* listens on (\S+)", line):
                self.address = found[1]
            if found := re.search(r"HTTP listens on (\S+)", line):
                self.http = found[1]
            if line.startswith("ready"):
                break
        self.start_ms = round((time.monotonic() - began) * 1000)
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(timeout=60)


def request(code, fields, body=b"", opaque=0):
    header = {"code": code, "flag": 0, "language": "OTHER", "opaque": opaque, "version": 455, "serializeTypeCurrentRPC": "JSON",
              "extFields": {name: str(value) for name, value in fields.items()}}
    header = json.dumps(header).encode()
    return struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body


def send_request(topic, properties, body):
    text = "".join(f"{name}\x01{value}\x02" for name, value in properties.items())
    fields = dict(a="lateness", b=topic, c="TBW102", d=1, e=0, f=0, g=int(now_ms()), h=0, i=text, m="false")
    return request(SEND, fields, str(body).encode())


class Remoting:
    """One connection; whoever asks waits for the answer."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def answers(self):
        """Header and body of all answers that have come, as bytes, after a wait for the first."""
        while True:
            found, at = [], 0
            while len(self.received) - at >= 8:
                length, header = struct.unpack_from(">II", self.received, at)
                end, header = at + 4 + length, header & 0xFFFFFF
                if len(self.received) < end:
                    break
                found.append((self.received[at + 8:at + 8 + header], self.received[at + 8 + header:end]))
                at = end
            self.received = self.received[at:]
            if found:
                return found
            more = self.socket.recv(1 << 20)
            assert more, "the broker has ended the connection"
            self.received += more

    def ask(self, frame):
        self.socket.sendall(frame)
        [(header, body)] = self.answers()
        return json.loads(header), body

    def well(self, frame):
        answer, _ = self.ask(frame)
        assert answer["code"] == 0, answer

    def pull(self, group, topic, offset):
        """Messages, each its place and its body, and where to go on."""
        fields = dict(consumerGroup=group, topic=topic, queueId=0, queueOffset=offset, maxMsgNums=32, sysFlag=6, commitOffset=0,
                      suspendTimeoutMillis=10_000, subscription="*", subVersion=0, expressionType="TAG")
        answer, body = self.ask(request(PULL, fields))
        assert answer["code"] in (0, 19, 20, 21), answer
        found, at = [], 0
        while answer["code"] == 0 and at < len(body):
            size, = struct.unpack_from(">I", body, at)
            place, = struct.unpack_from(">q", body, at + 28)
            length, = struct.unpack_from(">I", body, at + 84)
            found.append((place, body[at + 88:at + 88 + length]))
            at += size
        return found, int(answer["extFields"]["nextBeginOffset"])


class Watch:
    """Takes note of when each message is there, until all are."""

    def __init__(self, count, take):
        """`take` waits, and returns the bodies that have come."""
        self.count, self.take, self.arrived = count, take, {}
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while len(self.arrived) < self.count:
            bodies = self.take()
            now = now_ms()
            for body in bodies:
                assert int(body) not in self.arrived, f"{body} came twice"
                self.arrived[int(body)] = now

    def lateness(self, due):
        self.thread.join()
        late = sorted(self.arrived[number] - due[number] for number in due)
        assert late[0] > -1, f"{-late[0]} ms early"
        at = lambda share: round(late[min(len(late) - 1, int(len(late) * share))], 1)  # noqa: E731
        return {"messages": len(late), "p50": at(0.5), "p99": at(0.99), "max": round(late[-1], 1)}


def pulls(broker, group, topic, note=lambda place, body: None):
    client, offset = Remoting(broker.address), [0]

    def take():
        found, offset[0] = client.pull(group, topic, offset[0])
        for place, body in found:
            note(place, body)
        return [body for _, body in found]
    return take


def fetches(broker, topic):
    client, offset = Connection(broker.address), [0]
    *_, topic_id, _ = client.route(topic)

    def take():
        messages, offset[0] = client.fetch(topic_id, 0, offset[0], wait_ms=10_000)
        return [message["body"] for message in messages]
    return take


def receives(broker, topic):
    client = http.client.HTTPConnection(broker.http)

    def take():
        client.request("GET", f"/topics/{topic}/messages?consumer=lateness&numOfMessages=16&waitseconds=10",
                       headers={"x-mq-version": "2015-06-06"})
        return re.findall(r"<MessageBody>(\d+)</MessageBody>", client.getresponse().read().decode())
    return take


def send_all(broker, topic, messages, properties):
    """Sends the messages; returns when each is due."""
    client, due = Remoting(broker.address), {}
    for number in range(messages):
        said, due[number] = properties()
        client.well(send_request(topic, said, number))
        time.sleep(PAUSE * random.uniform(0.5, 1.5))
    return due


def at_a_time():
    due = int(now_ms()) + AHEAD_MS
    return {"TIMER_DELIVER_MS": due}, due


def at_level_one():
    return {"DELAY": 1}, now_ms() + 1_000


def lateness_of(broker, name, messages, how, takes):
    topic = f"late-{name}"
    Remoting(broker.address).well(send_request(topic, {}, 0))
    first = takes(topic)
    assert [int(body) for body in first()] == [0], "the message that has made the topic"
    watch = Watch(messages, first)
    return watch.lateness(send_all(broker, topic, messages, how))


def retries(broker, messages):
    """What is given back with level 1 as soon as it is there."""
    topic, client, due = "late-retries", Remoting(broker.address), {}

    def give_back(place, body):
        due[int(body)] = now_ms() + 1_000
        client.well(request(SEND_BACK, dict(group="g", offset=place, delayLevel=1)))
    Remoting(broker.address).well(send_request(topic, {}, 0))
    again = Watch(messages + 1, pulls(broker, "g", "%RETRY%g"))
    once = Watch(messages + 1, pulls(broker, "g", topic, give_back))
    sender = Remoting(broker.address)
    for number in range(1, messages + 1):
        sender.well(send_request(topic, {}, number))
        time.sleep(PAUSE * random.uniform(0.5, 1.5))
    once.thread.join()
    return again.lateness(due)


def fill(broker, count):
    """Stores messages for times from an hour to 30 days ahead."""
    client, now = Remoting(broker.address), int(now_ms())
    before, began = broker.resident(), time.monotonic()
    failed = []

    def read():
        left = count
        while left > 0:
            answers = client.answers()
            left -= len(answers)
            failed.extend(header for header, _ in answers if b'"code":0' not in header)
    reader = threading.Thread(target=read)
    reader.start()
    # One request as bytes, but for its time and its id.
    time_of_one, id_of_one = "2" * 13, "7" * 32
    one = send_request("pending", {"TIMER_DELIVER_MS": time_of_one, "UNIQ_KEY": id_of_one}, "x" * 100)
    front, rest = one.split(time_of_one.encode())
    middle, back = rest.split(id_of_one.encode())
    for first in range(0, count, 500):
        numbers = range(first, min(first + 500, count))
        due = now + HOUR_MS
        client.socket.sendall(b"".join(
            b"%s%d%s%032d%s" % (front, due + random.randrange(30 * 24 * HOUR_MS), middle, number, back) for number in numbers))
    reader.join()
    assert not failed, failed[:3]
    took = time.monotonic() - began
    return {"what": "stored", "messages": count, "seconds": round(took, 1), "per_second": round(count / took),
            "resident_before": before, "resident_after": broker.resident()}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("turbopump")
    arguments.add_argument("directory")
    arguments.add_argument("--messages", type=int, default=1_000)
    arguments.add_argument("--pending", type=int, default=0)
    arguments.add_argument("--flags", default="")
    said = arguments.parse_args()
    data = os.path.join(said.directory, "lateness-data")
    shutil.rmtree(data, ignore_errors=True)
    broker = Broker(said.turbopump, data, said.flags.split())
    os.sched_setaffinity(0, {1 % os.cpu_count()})

    def show(**line):
        print(json.dumps(line), flush=True)
    try:
        if said.pending:
            show(**fill(broker, said.pending))
            broker.end(signal.SIGKILL)
            os.sched_setaffinity(0, range(os.cpu_count()))
            broker = Broker(said.turbopump, data, said.flags.split())
            os.sched_setaffinity(0, {1 % os.cpu_count()})
            show(what="started again", ms=broker.start_ms, resident=broker.resident())
        remoting, messages = lambda topic: pulls(broker, "lateness", topic), said.messages
        show(protocol="remoting", what="time", **lateness_of(broker, "times", messages, at_a_time, remoting))
        show(protocol="remoting", what="level 1", **lateness_of(broker, "levels", messages, at_level_one, remoting))
        show(protocol="remoting", what="retry at level 1", **retries(broker, messages))
        show(protocol="http", what="time",
             **lateness_of(broker, "http", messages, at_a_time, lambda topic: receives(broker, topic)))
        show(protocol="native", what="time",
             **lateness_of(broker, "native", messages, at_a_time, lambda topic: fetches(broker, topic)))
        show(what="resident at the end", resident=broker.resident())
    finally:
        broker.end(signal.SIGTERM)
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    main()
