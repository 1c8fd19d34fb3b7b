"""Records what Apache's broker tells Prometheus: the names, types, labels and buckets of a live scrape, for `tests/node/metrics.rs`.

    MQADMIN=DIRECTORY python3 tests/clients/metrics/record.py > tests/data/metrics/apache-5.5.0.tsv

MQADMIN names a directory in which `lib` has what tests/clients/remoting-mqadmin/pom.xml names, as for tools/compare-apache.sh."""

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

LIBRARY = os.environ["MQADMIN"] + "/lib/*"
PATIENCE = 120
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum"), "counter": ("", "_total")}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def java(home, main, *arguments, output=subprocess.DEVNULL):
    environment = dict(os.environ, ROCKETMQ_HOME=home)
    command = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED",
               f"-Duser.home={home}", f"-Djava.io.tmpdir={home}", "-cp", f"{home}/conf:{LIBRARY}", main, *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, text=True)


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def families(text):
    """Of each family its type, the names of its labels, and its buckets."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    found = {name: (set(), []) for name in kinds}
    for line in text.splitlines():
        if not (sample := SAMPLE.match(line)):
            continue
        name = next(family for family, kind in kinds.items()
                    if any(sample[1] == family + suffix for suffix in SUFFIXES.get(kind, ("",))))
        labels, buckets = found[name]
        for label, value in LABEL.findall(sample[2] or ""):
            if label != "le":
                labels.add(label)
            elif value not in buckets:
                buckets.append(value)
    return [(name, kinds[name], sorted(labels), buckets) for name, (labels, buckets) in sorted(found.items())]


def main():
    with tempfile.TemporaryDirectory() as home:
        os.mkdir(home + "/conf")
        with open(home + "/conf/rmq.logback.xml", "w", encoding="ascii") as file:
            file.write("<configuration></configuration>")
        name_server, broker, metrics = free_port(), free_port(), free_port()
        with open(home + "/namesrv.conf", "w", encoding="ascii") as file:
            file.write(f"listenPort={name_server}\n")
        with open(home + "/broker.conf", "w", encoding="ascii") as file:
            file.write(f"brokerName=broker-a\nbrokerId=0\nbrokerIP1=127.0.0.1\nlistenPort={broker}\n"
                       f"namesrvAddr=127.0.0.1:{name_server}\nstorePathRootDir={home}/store\n"
                       f"storePathCommitLog={home}/store/commitlog\nmappedFileSizeCommitLog=1048576\n"
                       "mappedFileSizeConsumeQueue=60000\nmappedFileSizeTimerLog=1048576\n"
                       f"metricsExporterType=PROM\nmetricsPromExporterHost=127.0.0.1\nmetricsPromExporterPort={metrics}\n")
        started = []
        try:
            started.append(java(home, "org.apache.rocketmq.namesrv.NamesrvStartup", "-c", home + "/namesrv.conf"))
            started.append(java(home, "org.apache.rocketmq.broker.BrokerStartup", "-c", home + "/broker.conf"))
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    scrape(metrics)
                    break
                except OSError:
                    assert time.monotonic() < deadline, "Apache's broker does not start"
                    time.sleep(0.5)
            source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Traffic.java")
            traffic = java(home, source, f"127.0.0.1:{name_server}", output=subprocess.PIPE)
            started.append(traffic)
            for line in traffic.stdout:
                if line == "ready\n":
                    break
                print(line, end="", file=sys.stderr)
            else:
                raise SystemExit("the clients have ended")
            text = scrape(metrics)
        finally:
            for process in started:
                process.kill()
                process.wait()
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            file.write(text)
    for name, kind, labels, buckets in families(text):
        print(name, kind, ",".join(labels), ",".join(buckets), sep="\t")


main()
