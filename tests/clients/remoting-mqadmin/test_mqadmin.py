"""RocketMQ's own `mqadmin`, unmodified, against the real broker, and beside it against Apache's broker and name server: what both
answer to the same commands. Apache's broker registers with both name servers, so ours has to hold it as Apache's does.

SHARDS says how many shards, TURBOPUMP names the binary, MQADMIN the directory with what pom.xml names in `lib`."""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

SHARDS = int(os.environ["SHARDS"])
DIRECTORY = os.environ["MQADMIN"]
PATIENCE = 120
CLUSTER = "DefaultCluster"
OURS = [f"ours-{shard}" for shard in range(SHARDS)]
# What a broker of Apache's tells of itself and ours does not: threads, a page cache and files that there are none of here.
LEFT_OUT = re.compile(
    r"ThreadPool|^commitLogDiskRatio_|dispatchMaxBuffer|putMessageDistributeTime|EntireTimeMax|putLatency|commitLogDirCapacity|scheduleMessageOffset_"
    r"|replyThread|adminBroker|PopLongPolling|transaction|queryAssignment|Queue|heartbeat|clientManage|consumerManage|"
    r"endTransaction|litePull|^timer|pop|sync|Sync|lite|Lite|brokerRole|dledger")


def free_port():
    """One that is free with its neighbours, on two of which Apache's broker listens as well; and not one of those that the system
    gives to whoever connects, or another suite's client may have it by then."""
    while True:
        port = random.randrange(12_000, 30_000, 8)
        try:
            for neighbour in range(port - 2, port + 2):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", neighbour))
            return port
        except OSError:
            continue


class Java:
    """Apache's programs, with their homes in a throw-away directory."""

    def __init__(self, home):
        self.home = home
        os.makedirs(home + "/conf", exist_ok=True)
        # Without it they write their logger's news to standard output.
        with open(home + "/conf/rmq.logback.xml", "w", encoding="ascii") as file:
            file.write("<configuration></configuration>")

    def command(self, main, *arguments, memory="128m"):
        return ["java", f"-Xmx{memory}", "-XX:TieredStopAtLevel=1", "--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED",
                f"-Duser.home={self.home}", f"-Djava.io.tmpdir={self.home}", "-cp", f"{self.home}/conf:{DIRECTORY}/lib/*", main,
                *arguments]

    def start(self, main, *arguments):
        environment = dict(os.environ, ROCKETMQ_HOME=self.home)
        return subprocess.Popen(self.command(main, *arguments, memory="512m"), env=environment, stdout=subprocess.DEVNULL,
                                stderr=subprocess.STDOUT)

    def start_admin(self):
        """Admin.java, which carries out the commands of all tests."""
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Admin.java")
        self.admin = subprocess.Popen(self.command(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, encoding="utf-8")
        return self.admin

    def mqadmin(self, server, *arguments):
        self.admin.stdin.write("\t".join([*arguments, "-n", server]) + "\n")
        self.admin.stdin.flush()
        lines = []
        while (line := self.admin.stdout.readline()) != "\0\n":
            assert line, "mqadmin has ended: " + "".join(lines)
            if "|-" not in line:
                lines.append(line)
        return "".join(lines).strip("\n")


class MqAdmin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        cls.java = Java(cls.work)
        command = [os.environ["TURBOPUMP"], "serve", "--data", cls.work + "/data", "--listen", "127.0.0.1:0", "--http", "none",
                   "--namesrv", "127.0.0.1:0", "--node", "ours", "--shards", str(SHARDS), "--segment-bytes", "16MiB",
                   "--log-level", "warn", "--buffered-io"]
        broker = cls.until_the_end(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        cls.shards = []
        for line in broker.stdout:
            if found := re.match(r"  shard \d+ .*listens on (\S+)", line):
                cls.shards.append(found[1])
            if found := re.search(r"name server listens on (\S+)", line):
                cls.ours = found[1]
            if line == "ready\n":
                break
        subprocess.run([os.environ["TURBOPUMP"], "topic", "create", "orders", "--queues", "10"], check=True,
                       stdout=subprocess.DEVNULL, env=dict(os.environ, TURBOPUMP_SERVER=cls.shards[0]))
        cls.start_apache()

    @classmethod
    def start_apache(cls):
        name_server, cls.apache_broker = free_port(), f"127.0.0.1:{free_port()}"
        cls.apache = f"127.0.0.1:{name_server}"
        with open(cls.work + "/namesrv.conf", "w", encoding="ascii") as file:
            file.write(f"listenPort={name_server}\n")
        with open(cls.work + "/broker.conf", "w", encoding="ascii") as file:
            file.write(f"brokerName=theirs\nbrokerClusterName={CLUSTER}\nbrokerId=0\nbrokerIP1=127.0.0.1\n"
                       f"listenPort={cls.apache_broker.split(':')[1]}\nnamesrvAddr={cls.apache};{cls.ours}\n"
                       f"storePathRootDir={cls.work}/store\nstorePathCommitLog={cls.work}/store/commitlog\n"
                       "mappedFileSizeCommitLog=1048576\nmappedFileSizeConsumeQueue=60000\n"
                       "registerNameServerPeriod=10000\nbrokerHeartbeatInterval=1000\n")
        cls.until_the_end(cls.java.start("org.apache.rocketmq.namesrv.NamesrvStartup", "-c", cls.work + "/namesrv.conf"))
        cls.theirs = cls.java.start("org.apache.rocketmq.broker.BrokerStartup", "-c", cls.work + "/broker.conf")
        cls.until_the_end(cls.theirs)
        cls.until_the_end(cls.java.start_admin())
        for server in [cls.apache, cls.ours]:
            cls.wait_for(f"Apache's broker registers with {server}", lambda at=server: "theirs" in cls.run_admin(at, "clusterList"))

    @classmethod
    def until_the_end(cls, process):
        """It ends with the tests, and with a set-up that fails."""
        def end():
            process.kill()
            process.wait()
            for stream in filter(None, [process.stdin, process.stdout]):
                stream.close()

        cls.addClassCleanup(end)
        return process

    @classmethod
    def run_admin(cls, server, *arguments):
        return cls.java.mqadmin(server, *arguments)

    @staticmethod
    def wait_for(what, is_so):
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, what
            time.sleep(0.5)

    def route(self, server, topic):
        printed = self.run_admin(server, "topicRoute", "-t", topic)
        # fastjson writes keys that are numbers without quotes.
        try:
            route = json.loads(re.sub(r'(\d+):"', r'"\1":"', printed))
        except ValueError:
            return printed
        addresses = {broker["brokerName"]: broker["brokerAddrs"]["0"] for broker in route["brokerDatas"]}
        return {queues["brokerName"]: (addresses[queues["brokerName"]], queues["readQueueNums"], queues["writeQueueNums"],
                                       queues["perm"]) for queues in route["queueDatas"]}

    def test_a_route_leads_to_the_shards_whoever_is_asked(self):
        shares = [len(range(shard, 10, SHARDS)) for shard in range(SHARDS)]
        expected = {name: (address, share, share, 6) for name, address, share in zip(OURS, self.shards, shares)}
        for server in [self.ours, self.shards[-1]]:
            self.assertEqual(self.route(server, "orders"), expected)

    def test_a_topic_that_is_not_there_is_refused_as_apache_does(self):
        def refusal(server):
            return re.search(r"CODE: \d+ +DESC: .*", self.run_admin(server, "topicRoute", "-t", "nowhere"))[0]

        self.assertEqual(refusal(self.ours), refusal(self.apache))

    def test_lists_have_topics_and_brokers(self):
        ours = set(self.run_admin(self.ours, "topicList").split())
        self.assertLessEqual({"orders", CLUSTER, *OURS, "theirs"}, ours)
        theirs = set(self.run_admin(self.apache, "topicList").split())
        # Apache's broker has told both all that it has.
        self.assertLessEqual(theirs, ours)

    def test_clusters_are_shown_as_apache_shows_them(self):
        def rows(server):
            heading, *lines = self.run_admin(server, "clusterList").splitlines()
            return heading, {line.split()[1]: line.split() for line in lines if line.startswith(CLUSTER)}

        heading, ours = rows(self.ours)
        apache_heading, theirs = rows(self.apache)
        self.assertEqual(heading, apache_heading)
        self.assertEqual(list(ours), [*OURS, "theirs"])
        for name, address in zip(OURS, self.shards):
            self.assertEqual(ours[name][2:4], ["0", address])
            self.assertEqual(ours[name][-1], "true", "it is active")
        self.assertEqual(ours["theirs"][2:4], theirs["theirs"][2:4])

    def test_a_broker_tells_of_itself_what_apaches_does(self):
        def table(server, broker):
            printed = self.run_admin(server, "brokerStatus", "-b", broker)
            return dict(re.findall(r"^(\S+?)\s*: (.*)$", printed, re.MULTILINE))

        theirs, ours = table(self.apache, self.apache_broker), table(self.ours, self.shards[0])
        missing = sorted(name for name in theirs if name not in ours and not LEFT_OUT.search(name))
        self.assertEqual(missing, [])
        self.assertEqual(ours["brokerActive"], "true")
        for name in ["putTps", "getTransferredTps", "msgPutTotalTodayNow", "earliestMessageTimeStamp", "commitLogDiskRatio"]:
            self.assertTrue(all(float(word) >= 0 for word in ours[name].split()), (name, ours[name]))

    def test_brokers_of_others_are_known_until_they_leave(self):
        self.run_admin(self.ours, "updateTopic", "-b", self.apache_broker, "-t", "both", "-r", "4", "-w", "2")
        expected = {"theirs": (self.apache_broker, 4, 2, 6)}
        self.wait_for("the new topic is told", lambda: self.route(self.apache, "both") == expected)
        self.wait_for("the new topic is told", lambda: self.route(self.ours, "both") == expected)
        self.assertEqual(self.route(self.shards[-1], "both"), expected)

    def test_settings_are_kept(self):
        self.run_admin(self.ours, "updateKvConfig", "-s", "SPACE", "-k", "name", "-v", "value")
        printed = self.run_admin(self.ours, "updateOrderConf", "-m", "get", "-t", "orders")
        self.assertIn("No config item", printed)
        self.run_admin(self.ours, "updateOrderConf", "-m", "put", "-t", "orders", "-v", "ours-0:4")
        self.assertIn("ours-0:4", self.run_admin(self.ours, "updateOrderConf", "-m", "get", "-t", "orders"))
        self.run_admin(self.ours, "deleteKvConfig", "-s", "ORDER_TOPIC_CONFIG", "-k", "orders")
        self.assertIn("No config item", self.run_admin(self.ours, "updateOrderConf", "-m", "get", "-t", "orders"))

    def test_messages_are_shown_as_they_are_stored(self):
        def turbopump(*arguments, lines=None):
            return subprocess.run([os.environ["TURBOPUMP"], *arguments, "--server", self.shards[0]], check=True, input=lines,
                                  capture_output=True, encoding="utf-8").stdout

        turbopump("topic", "create", "shown", "--queues", str(2 * SHARDS))
        turbopump("produce", "shown", lines="".join(f"body-{number}\n" for number in range(20)))
        stored = [json.loads(line) for line in turbopump("consume", "shown", "-o", "json").splitlines()]
        expected = {(OURS[entry["queue"] % SHARDS], str(entry["queue"] // SHARDS), str(entry["offset"]), entry["id"], entry["body"])
                    for entry in stored}
        self.assertEqual(len(expected), 20)
        message = re.compile(r"brokerName=(\S+), queueId=(\d+), .*? queueOffset=(\d+), .* msgId=(\w+), .* BODY: (.*)")
        printed = self.run_admin(self.ours, "printMsg", "-t", "shown")
        self.assertEqual(set(message.findall(printed)), expected)
        broker, queue, offset, message_id, _ = sorted(expected)[0]
        shown = self.run_admin(self.ours, "queryMsgByOffset", "-t", "shown", "-b", broker, "-i", queue, "-o", offset)
        shown = dict(re.findall(r"^(\S.*?): +(.*)$", shown, re.MULTILINE))
        self.assertEqual((shown["OffsetID"], shown["Queue ID"], shown["Queue Offset"]), (message_id, queue, offset))
        read = self.run_admin(self.ours, "consumeMessage", "-t", "shown", "-b", broker, "-i", queue, "-o", "0", "-c", "1")
        self.assertEqual(message.findall(read)[0][:4], (broker, queue, "0", message_id))

    def test_zz_a_broker_that_stops_is_gone(self):
        self.theirs.terminate()
        self.theirs.wait(PATIENCE)
        self.wait_for("it is gone", lambda: "theirs" not in self.run_admin(self.ours, "clusterList"))
        self.assertEqual(list(self.route(self.ours, "orders")), OURS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
