"""RocketMQ's own `mqadmin`, unmodified, beside each other against a broker of ours and one of Apache's in the same state: what both
print, and what differs. `tools/compare-apache.sh` runs it.

What differs has to have its row in docs/mqadmin.md, and what has a row has to differ: it ends with 1 where that is not so.

TURBOPUMP names the binary, MQADMIN the directory with what pom.xml names in `lib`."""

import os
import re
import subprocess
import sys

os.environ["SHARDS"] = "1"
from test_mqadmin import CLUSTER, Brokers, Java

MANUAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../docs/mqadmin.md")
WIDTH = 76
# In this order: what one sets up, others show. BROKER, NAME, PLACE, UNIQUE and CLIENT stand for what each side has.
COMMANDS = """
updateTopic -b BROKER -t made -r 4 -w 4
updateTopic -b BROKER -t made -r 4 -w 2 -o true
updateTopic -b BROKER -t TBW102
updateTopicPerm -b BROKER -t made -p 4
topicList
topicRoute -t sales
topicRoute -t nowhere
topicStatus -t sales
topicStatus -t made
topicClusterList -t sales
allocateMQ -t sales -i 10.0.0.1,10.0.0.2
clusterList
clusterList -m
brokerStatus -b BROKER
getBrokerConfig -b BROKER
updateBrokerConfig -b BROKER -k flushDiskType -v ASYNC_FLUSH
getNamesrvConfig
updateKvConfig -s SPACE -k name -v value
deleteKvConfig -s SPACE -k name
wipeWritePerm -b NAME
addWritePerm -b NAME
updateSubGroup -b BROKER -g made -s false -r 3
getConsumerConfig -g made
deleteSubGroup -b BROKER -g made -r true
consumerProgress
consumerProgress -g billing
consumerProgress -g nowhere
consumerConnection -g billing
consumerConnection -g nowhere
consumerStatus -g billing -i CLIENT
producerConnection -g senders -t sales
producer -b BROKER
brokerConsumeStats -b BROKER
statsAll -t sales
sendMessage -t sales -p hello -k one -c TagB -b NAME -i 2
queryMsgByKey -t sales -k one
queryMsgByKey -t sales -k none
queryMsgByOffset -t sales -b NAME -i 1 -o 0
queryMsgById -t sales -i PLACE
queryMsgByUniqueKey -t sales -i UNIQUE
queryMsgTraceById -i UNIQUE
printMsg -t sales -d true
printMsgByQueue -t sales -a NAME -i 1 -p true -d true
consumeMessage -t sales -b NAME -i 1
checkMsgSendRT -t sales -a 3 -s 64
sendMsgStatus -b NAME -s 64 -c 3
resetOffsetByTime -g billing -t sales -s 0
skipAccumulatedMessage -g billing -t sales
cloneGroupOffset -s billing -d copies -t sales -o true
exportMetadata -c CLUSTER -f FOLDER
createUser -b BROKER -u somebody -p secret -t Normal
listUser -b BROKER
createAcl -b BROKER -s User:somebody -r Topic:sales -a Pub -d Allow
listAcl -b BROKER
deleteTopic -c CLUSTER -t made
"""
# These run until they are stopped.
ENDLESS = ["clusterRT -a 3 -s 64 -c CLUSTER -i 1"]
# What differs from one moment or one machine to the next.
MOMENTS = [
    (re.compile(r"\d{4}-\d\d-\d\d[ T#]\d\d:\d\d:\d\d([,.:]\d+)?"), "TIME"),
    (re.compile(r"\b1[78]\d{11}\b"), "MS"),
    (re.compile(r"\b[0-9A-F]{32}([0-9A-F]{24})?\b"), "ID"),
    (re.compile(r"/?\b(\d{1,3}\.){3}\d{1,3}(:\d+)?"), "HOST"),
    (re.compile(r"\b127-0-0-1-\d+"), "INSTANCE"),
    (re.compile(r"-?\b\d+\.\d+(E-?\d+)?\b"), "RATE"),
    (re.compile(r"(CommitLog Offset: +|commitLogOffset=|storeSize=|rt=|#|broker-0 +\d +true +)\d+"), r"\1N"),
    (re.compile(r"(?<=[(|])\d+,\d+ms"), "WAIT"),
    (re.compile(r"/\S*/(store|data|tmp\w*)\b\S*"), "PATH"),
    (re.compile(r"\{(\w+=[^{}]*)\}"), lambda found: "{" + ", ".join(sorted(found[1].split(", "))) + "}"),
    (re.compile(r"@K@one@ID@\d+"), "@K@one@ID@N"),
    (re.compile(r"\b20\d{12}(\d{3})?\b"), "TIME"),
    (re.compile(r"@[0-9a-f]{6,8}\b|Lambda\$\d+/0x\w+"), "OBJECT"),
    # Apache's broker counts every ten seconds.
    (re.compile(r"(?<=sales ) *(billing +0 .*) +\d+ +\d+$", re.MULTILINE), r"\1 N N"),
    # Of a queue that has nothing in it a client knows no offset until it has said one.
    (re.compile(r"(?<=commitOffset=)-1\b"), "0"),
    (re.compile(r"^(sales[ \t]+broker-0[ \t]+\d[ \t]+)-1[ \t]*$", re.MULTILINE), r"\g<1>0"),
    # A wish of the producer's, which is carried out here and not stored.
    (re.compile(r", WAIT=true"), ""),
]
# A client consumes what comes again from the moment on in which it has learned of that topic's route.
NOISE = re.compile(r"^%RETRY%billing +broker-0 |^\s+at |^\s+\.\.\. \d+ more|^(For more information|See ).*rocketmq.apache.org|^org\.apache\..*SubCommandException")


class Pair(Brokers):
    """Both brokers have the same name, and each a name server of its own."""

    NODE = "broker"
    THEIRS = "broker-0"
    IS_SHARED = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # Some commands can be run once in a process only.
        cls.other = Java(cls.work + "/other")
        cls.until_the_end(cls.other.start_admin())
        cls.sides = {"ours": (cls.java, cls.ours, cls.shards[0]), "Apache's": (cls.other, cls.apache, cls.apache_broker)}
        cls.run_line("ours", f"deleteTopic -c {CLUSTER} -t orders")
        for side in cls.sides:
            cls.set_up(side)

    @classmethod
    def run_line(cls, side, line):
        """What a command prints; once more where a machine that is busy has let it wait for too long."""
        java, server, _ = cls.sides[side]
        printed = ""
        for _ in range(3):
            printed = java.mqadmin(server, *cls.words(side, line))
            if "RemotingTimeoutException" not in printed:
                break
        return printed

    @classmethod
    def words(cls, side, line):
        _, _, broker = cls.sides[side]
        known = {"BROKER": broker, "NAME": cls.THEIRS, "CLUSTER": CLUSTER, "FOLDER": cls.work, **cls.found.get(side, {})}
        return [known.get(word, word) for word in line.split()]

    found = {}

    @classmethod
    def set_up(cls, side):
        java, server, _ = cls.sides[side]
        cls.run_line(side, "updateTopic -b BROKER -t sales -r 4 -w 4")
        cls.wait_for("the topic is told", lambda: "brokerDatas" in cls.run_line(side, "topicRoute -t sales"))
        for group in ["billing", "copies"]:
            cls.run_line(side, f"updateSubGroup -b BROKER -g {group}")
        for number in range(6):
            sent = java.mqadmin(server, "send", "sales", "TagA", cls.THEIRS, str(number % 2), f"body {number}")
            assert "SEND_OK" in sent, sent
        cls.run_line(side, "consume billing sales *")
        committed = re.compile(r"sales +broker-0 +1 +3 +3 +0 ")
        cls.wait_for("all is committed", lambda: committed.search(cls.run_line(side, "consumerProgress -g billing")))
        shown = cls.run_line(side, "queryMsgByOffset -t sales -b NAME -i 0 -o 0")
        client = re.search(r"^(\S+@\S+) ", cls.run_line(side, "consumerConnection -g billing"), re.MULTILINE)
        cls.found[side] = {"PLACE": re.search(r"OffsetID: +(\S+)", shown)[1], "UNIQUE": re.search(r"UNIQ_KEY=(\w+)", shown)[1],
                           "CLIENT": client[1]}

    @classmethod
    def endless(cls, side, line):
        java, server, _ = cls.sides[side]
        command = java.command("org.apache.rocketmq.tools.command.MQAdminStartup", *cls.words(side, line), "-n", server)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", cwd=cls.work)
        cls.until_the_end(running)
        lines = []
        for line in running.stdout:
            if line.startswith(("#", CLUSTER)):
                lines.append(line)
            if line.startswith(CLUSTER):
                break
        running.kill()
        return re.sub(r"(?<= )\d+(?= )", "N", "".join(lines))

    @classmethod
    def plain_lines(cls, text):
        for address in [*cls.shards, cls.apache_broker, cls.apache, cls.ours]:
            text = text.replace(address, "ADDRESS")
        for pattern, instead in MOMENTS:
            text = pattern.sub(instead, text)
        lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.splitlines() if not NOISE.search(line)]
        return [line for line in lines if line]


def explained():
    """The commands with a row in the manual's table of differences, and what it says."""
    with open(MANUAL, encoding="utf-8") as file:
        table = file.read().partition("## Beside Apache's broker")[2]
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", table, re.MULTILINE))


def show(line, ours, theirs):
    """Side by side, or once where both are the same: lines in any order, since mqadmin prints some in that of a hash table."""
    differs = sorted(ours) != sorted(theirs)
    print(f"\n==== {line}: {'DIFFERS' if differs else 'the same'}")
    if not differs:
        print("\n".join(ours))
        return False
    both = set(ours) & set(theirs)
    common = [text for text in ours if text in both]
    left, right = [[text for text in lines if text not in both] for lines in [ours, theirs]]
    print(f"  {len(common)} lines are the same; {'ours':{WIDTH - 22}} | Apache's")
    for index in range(max(len(left), len(right))):
        mine, other = [lines[index] if index < len(lines) else "" for lines in [left, right]]
        for at in range(0, max(len(mine), len(other), 1), WIDTH):
            print(f"{mine[at:at + WIDTH]:{WIDTH}} | {other[at:at + WIDTH]}")
    return True


def main():
    known, wrong, count = explained(), [], 0
    try:
        Pair.setUpClass()
        for line in [*COMMANDS.strip().splitlines(), *ENDLESS]:
            run = Pair.endless if line in ENDLESS else Pair.run_line
            differs = show(line, *[Pair.plain_lines(run(side, line)) for side in Pair.sides])
            count += 1
            if differs and line in known:
                print(f"  as documented: {known[line]}")
            if differs != (line in known):
                wrong.append(f"{line}: {'differs, and docs/mqadmin.md does not say why' if differs else 'is the same by now: take its row out of docs/mqadmin.md'}")
    finally:
        Pair.doClassCleanups()
    for line in known:
        if line not in COMMANDS.splitlines() and line not in ENDLESS:
            wrong.append(f"{line}: has a row in docs/mqadmin.md, and is not run")
    print(f"\n{count} commands, {len(known)} documented differences")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
