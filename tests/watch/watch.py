"""What somebody on call meets in a night, made to happen, and looked for in the four places where they look: `turbopump top`, the metrics,
the console's calls, and the alerts of the real Prometheus. `tests/watch/run.sh` starts this with a directory in which `disk` is a small
file system of its own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

TURBOPUMP = os.environ["TURBOPUMP"]
WORK = sys.argv[1]
DISK = os.path.join(WORK, "disk")

# The rules wait for minutes, so that nobody is woken by a moment. Here their times are so many times as short.
FASTER = 30
# How long an alert may take from when its cause is there.
SEEN_WITHIN = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(what, look, within=SEEN_WITHIN):
    """Looks again and again, and returns the first answer that is one."""
    end = time.monotonic() + within
    last = None
    while time.monotonic() < end:
        try:
            found = look()
            if found:
                return found
        except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
            last = error
        time.sleep(0.5)
    raise AssertionError(f"not seen within {within} s: {what}" + (f" (last: {last})" if last else ""))


def get(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


class Broker:
    """The real one, on the small disk."""

    def __init__(self):
        self.children = []
        self.process = subprocess.Popen(
            [TURBOPUMP, "serve", "--data", os.path.join(DISK, "data"), "--shards", "1", "--segment-bytes", "16MiB"]
            + ["--listen", "127.0.0.1:0", "--http", "none", "--namesrv", "none", "--admin", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=open(os.path.join(WORK, "broker.log"), "wb"),
            text=True,
        )
        for line in self.process.stdout:
            address = re.search(r"127\.0\.0\.1:\d+", line)
            if line.strip().startswith("the admin"):
                self.admin = address[0]
            elif line.strip().startswith("shard 0"):
                self.native = address[0]
            elif line.strip() == "ready":
                return
        raise AssertionError("the broker does not start: " + open(os.path.join(WORK, "broker.log")).read())

    def run(self, *words, text=None, fails=False):
        done = subprocess.run(
            [TURBOPUMP, *words, "--server", self.native], input=text, capture_output=True, text=True, timeout=120
        )
        if fails is not None and (done.returncode != 0) != fails:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def begin(self, *words, text=None):
        child = subprocess.Popen(
            [TURBOPUMP, *words, "--server", self.native],
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.children.append(child)
        return child

    # The four places.

    def top(self):
        return json.loads(self.run("top", "--once", "-o", "json"))

    def top_group(self, group):
        return next((found for found in self.top()["groups"] if found["group"] == group), None)

    def console(self, path):
        status, body = get(self.admin, "/api/" + path)
        if status != 200:
            raise ValueError(f"/api/{path}: {status} {body}")
        return json.loads(body)

    def metric(self, name, **labels):
        """The sum of the series of this name with these labels; `None` without any."""
        total = None
        for line in get(self.admin, "/metrics")[1].splitlines():
            found = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total = (total or 0) + float(found[2])
        return total


class Prometheus:
    """The real one, with the rules and the scrape configuration that turbopump writes, in a hurry."""

    def __init__(self, broker):
        rules = subprocess.run([TURBOPUMP, "generate", "alerts"], check=True, capture_output=True, text=True).stdout
        self.names = set(re.findall(r"alert: (\S+)", rules))
        with open(os.path.join(WORK, "turbopump-alerts.yaml"), "w") as file:
            file.write(hurried(rules))
        scrape = subprocess.run(
            [TURBOPUMP, "generate", "prometheus", "--target", broker.admin], check=True, capture_output=True, text=True
        ).stdout
        scrape, count = re.subn(
            r"scrape_interval: \S+", "scrape_interval: 1s\n  evaluation_interval: 1s", scrape, count=1
        )
        assert count == 1, scrape
        configuration = os.path.join(WORK, "prometheus.yml")
        with open(configuration, "w") as file:
            file.write(scrape)
        subprocess.run(["promtool", "check", "config", configuration], check=True, stdout=subprocess.DEVNULL)
        self.address = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={WORK}/prometheus"]
            + [f"--web.listen-address={self.address}", "--log.level=error"]
        )
        until("prometheus answers", lambda: get(self.address, "/-/ready")[0] == 200)

    def fires(self, name, **labels):
        assert name in self.names, f"there is no rule {name}"
        alerts = json.loads(get(self.address, "/api/v1/alerts")[1])["data"]["alerts"]
        return any(
            alert["state"] == "firing"
            and alert["labels"]["alertname"] == name
            and all(alert["labels"].get(label) == value for label, value in labels.items())
            for alert in alerts
        )


def hurried(rules):
    """The rules with shorter times, and the two numbers that are times as well."""

    def shorter(found):
        unit = {"m": 60, "h": 3600}[found[2]]
        return f"{max(2, int(found[1]) * unit // FASTER)}s"

    rules = re.sub(r"(?<=\[)(\d+)([mh])(?=\])|(?<=for: )(\d+)([mh])", lambda found: shorter(
        found if found[1] else re.match(r"(\d+)([mh])", found[0])
    ), rules)
    rules, count = re.subn(r"> 270\b", f"> {270 // FASTER}", rules)
    assert count == 1, "TurbopumpConsumerHangs has another bound"
    rules, count = re.subn(r"4 \* 3600", str(4 * 3600 // FASTER), rules)
    assert count == 1, "TurbopumpDiskFullSoon looks ahead for another time"
    return rules


def step(text):
    print(f"{text} ({time.monotonic() - BEGUN:.0f} s)", flush=True)


def a_consumer_that_hangs(broker, prometheus):
    """It has taken a message, and neither acknowledges nor ends."""
    broker.run("topic", "create", "orders", "--queues", "1")
    broker.run("produce", "orders", text="one\ntwo\n")
    broker.run("message", "receive", "orders", "--group", "hanging", "--lease", "10m")
    seen = until("top: leased", lambda: (group := broker.top_group("hanging")) and group["leased"] == 1 and group)
    assert seen["lag"] == 2 and seen["oldest_unread_age_ms"] > 0, seen
    assert broker.metric("rocketmq_consumer_inflight_messages", consumer_group="hanging") == 1
    assert broker.metric("turbopump_group_oldest_unread_age_seconds", consumer_group="hanging") > 0
    shown = next(group for group in broker.console("groups")["rows"] if group["group"] == "hanging")
    assert shown["leased"] == 1, shown
    until("alert", lambda: prometheus.fires("TurbopumpConsumerHangs", consumer_group="hanging"))


def a_poison_message(broker, prometheus):
    """Nobody gets done with it, until it goes to the dead letters."""
    broker.run("topic", "create", "letters", "--queues", "1")
    broker.run("group", "create", "poisoned", "--deliveries", "1")
    # A counter that is new has not grown yet: something else was a dead letter before.
    for body in ["first", "poison"]:
        broker.run("message", "publish", "letters", body)
        broker.run("message", "receive", "letters", "--group", "poisoned", "--lease", "1s")
        before = broker.metric("rocketmq_send_to_dlq_messages_total", consumer_group="poisoned") or 0
        until("metric: a dead letter", lambda: (
            broker.run("message", "receive", "letters", "--group", "poisoned", fails=None) is not None
            and (broker.metric("rocketmq_send_to_dlq_messages_total", consumer_group="poisoned") or 0) > before
        ))
    until("top: dead letters", lambda: broker.top_group("poisoned")["dead_letters"] > 0)
    assert any(found["group"] == "poisoned" for found in broker.console("dead-letters")["rows"])
    until("alert", lambda: prometheus.fires("TurbopumpDeadLetters", consumer_group="poisoned"))


def a_stopped_client(broker, prometheus):
    """The only consumer of a group is killed, and messages come in."""
    broker.run("topic", "create", "mail", "--queues", "1")
    consumer = broker.begin("consume", "mail", "--group", "abandoned", "--follow")
    broker.run("produce", "mail", text="before\n")
    until("top: a member without lag", lambda: (group := broker.top_group("abandoned")) and group["members"] == 1 and group["lag"] == 0)
    consumer.send_signal(signal.SIGKILL)
    broker.run("produce", "mail", text="after\nafterwards\n")
    until("top: lag, and no member", lambda: (group := broker.top_group("abandoned")) and group["members"] == 0 and group["lag"] == 2)
    assert broker.metric("rocketmq_consumer_lag_messages", consumer_group="abandoned") == 2
    assert broker.metric("turbopump_group_members", consumer_group="abandoned") == 0
    shown = next(group for group in broker.console("groups")["rows"] if group["group"] == "abandoned")
    assert shown["lag"] == 2, shown
    until("alert", lambda: prometheus.fires("TurbopumpNoConsumers", consumer_group="abandoned"))


def a_slow_device(broker, prometheus):
    """The file system takes no writes for a fifth of a second, again and again."""
    broker.run("topic", "create", "slow", "--queues", "1")
    stalls = broker.metric("turbopump_disk_stalls_total")
    producer = broker.begin("bench", "produce", "slow", "--existing", "--batch", "1", "--rate", "200", "--duration", "60s")
    try:
        for _ in range(60):
            subprocess.run(["fsfreeze", "--freeze", DISK], check=True)
            time.sleep(0.2)
            subprocess.run(["fsfreeze", "--unfreeze", DISK], check=True)
            time.sleep(0.2)
            if prometheus.fires("TurbopumpDiskStalls", shard="0"):
                break
        else:
            raise AssertionError("not seen: TurbopumpDiskStalls")
        assert broker.metric("turbopump_disk_stalls_total") > stalls
        shard = broker.console("node")["shards"][0]
        assert any(name == "disk_stalls" and value > 0 for name, value in counters(shard)), shard
        until("top: rates of the device", lambda: broker.top()["node"]["shards"][0]["device_use"] is not None)
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", DISK], stderr=subprocess.DEVNULL)
        producer.kill()


def counters(shard):
    found = shard["counters"]
    return found.items() if isinstance(found, dict) else [(one["name"], one["value"]) for one in found]


def a_full_disk(broker, prometheus):
    """Somebody else fills the disk while messages come in; then room is made."""
    broker.run("topic", "create", "bulk", "--queues", "1")
    free = os.statvfs(DISK)
    ballast = os.path.join(DISK, "ballast")
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - (1 << 20))
    body = "x" * 100_000
    broker.run("produce", "bulk", text="".join(f"{body}\n" for _ in range(1_000)), fails=True)
    until("top: a shard that does not serve", lambda: broker.top()["node"]["shards"][0]["state"] != "ok")
    assert broker.metric("turbopump_shard_serving", shard="0") == 0
    status, words = get(broker.admin, "/readyz")
    assert status == 503 and "shard 0" in words, (status, words)
    shard = broker.console("node")["shards"][0]
    assert shard["state"] != "ok", shard
    until("alert", lambda: prometheus.fires("TurbopumpShardNotServing", shard="0"))
    until("alert", lambda: prometheus.fires("TurbopumpDiskAlmostFull", shard="0"))
    os.unlink(ballast)
    until("it serves again", lambda: get(broker.admin, "/readyz")[0] == 200)
    broker.run("produce", "bulk", text="room again\n")
    until("the alert ends", lambda: not prometheus.fires("TurbopumpShardNotServing", shard="0"))


def a_broker_that_is_gone(broker, prometheus):
    broker.process.kill()
    until("alert", lambda: prometheus.fires("TurbopumpDown"))
    done = subprocess.run([TURBOPUMP, "top", "--once", "--server", broker.native], capture_output=True, text=True)
    assert done.returncode != 0 and broker.native in done.stderr, done


BEGUN = time.monotonic()


def main():
    broker = Broker()
    prometheus = Prometheus(broker)
    try:
        for breaks in [
            a_consumer_that_hangs,
            a_poison_message,
            a_stopped_client,
            a_slow_device,
            a_full_disk,
            a_broker_that_is_gone,
        ]:
            step(breaks.__name__.replace("_", " "))
            breaks(broker, prometheus)
        step("each was seen in top, the metrics, the console and the alerts")
    finally:
        for child in [*broker.children, broker.process, prometheus.process]:
            child.kill()
            child.wait()


main()
