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
    r"ThreadPool|^commitLogDiskRatio_|putLatency|scheduleMessageOffset_"
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
        # Some commands write files to where they are.
        self.admin = subprocess.Popen(self.command(source), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, encoding="utf-8", cwd=self.home)
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


class Brokers(unittest.TestCase):
    """A broker of ours, and Apache's beside it."""

    NODE = "ours"
    THEIRS = "theirs"
    # Whether Apache's broker registers with our name server as well.
    IS_SHARED = True

    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.work, ignore_errors=True)
        cls.java = Java(cls.work)
        command = [os.environ["TURBOPUMP"], "serve", "--data", cls.work + "/data", "--listen", "127.0.0.1:0", "--http", "none",
                   "--namesrv", "127.0.0.1:0", "--node", cls.NODE, "--shards", str(SHARDS), "--segment-bytes", "16MiB",
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
            servers = f"{cls.apache};{cls.ours}" if cls.IS_SHARED else cls.apache
            file.write(f"brokerName={cls.THEIRS}\nbrokerClusterName={CLUSTER}\nbrokerId=0\nbrokerIP1=127.0.0.1\n"
                       f"listenPort={cls.apache_broker.split(':')[1]}\nnamesrvAddr={servers}\n"
                       f"storePathRootDir={cls.work}/store\nstorePathCommitLog={cls.work}/store/commitlog\n"
                       "mappedFileSizeCommitLog=1048576\nmappedFileSizeConsumeQueue=60000\n"
                       "registerNameServerPeriod=10000\nbrokerHeartbeatInterval=1000\n")
        cls.until_the_end(cls.java.start("org.apache.rocketmq.namesrv.NamesrvStartup", "-c", cls.work + "/namesrv.conf"))
        cls.theirs = cls.java.start("org.apache.rocketmq.broker.BrokerStartup", "-c", cls.work + "/broker.conf")
        cls.until_the_end(cls.theirs)
        cls.until_the_end(cls.java.start_admin())
        for server in [cls.apache, cls.ours] if cls.IS_SHARED else [cls.apache]:
            cls.wait_for(f"Apache's broker registers with {server}", lambda at=server: cls.THEIRS in cls.run_admin(at, "clusterList"))

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

    def plain(self, text):
        """What was printed, without what differs from broker to broker and from moment to moment."""
        for address in [*self.shards, self.apache_broker, self.apache, self.ours]:
            text = text.replace(address, "ADDRESS")
        text = re.sub(r"-(ours|theirs)\b(?!-)", "", text)
        text = re.sub(r"\b(ours-\d|theirs)\b", "BROKER", text)
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(,\d+)?", "TIME", text)
        return re.sub(r"[ \t]+", " ", text).strip()

    def each(self, *arguments):
        """The same command to both: `BROKER` and `NAME` stand for the address and the name of a broker, `SIDE` for what makes a name
        one of theirs: Apache's broker registers with both name servers. What both print."""
        printed = []
        for server, address, name, side in [(self.ours, self.shards[0], OURS[0], "ours"), (self.apache, self.apache_broker, "theirs", "theirs")]:
            words = [word.replace("BROKER", address).replace("NAME", name).replace("SIDE", side) for word in arguments]
            printed.append(self.plain(self.run_admin(server, *words)))
        return printed

    def assert_alike(self, *arguments):
        ours, theirs = self.each(*arguments)
        self.assertEqual(ours, theirs, arguments)
        return ours


class MqAdmin(Brokers):
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
        for name in ["putTps", "getTransferredTps", "msgPutTotalTodayNow", "earliestMessageTimeStamp"]:
            self.assertTrue(all(float(word) >= 0 for word in ours[name].split()), (name, ours[name]))
        # Both lie on one disk, which others use as well.
        self.assertAlmostEqual(float(ours["commitLogDiskRatio"]), float(theirs["commitLogDiskRatio"]), delta=0.05)

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
        print("\nworks: pull queue by queue", flush=True)

    def test_topics_are_set_up_and_removed(self):
        made = ["updateTopic", "-b", "BROKER", "-t", "made-SIDE", "-r", "4", "-w", "4"]
        self.assert_alike(*made)
        self.assertEqual(self.route(self.ours, "made-ours"),
                         {name: (address, 4, 4, 6) for name, address in zip(OURS, self.shards)}, "the node's, of one command")
        self.wait_for("Apache's is told", lambda: "theirs" in self.route(self.apache, "made-theirs"))
        ours, theirs = [re.findall(r"^BROKER \d+ 0 0 *$", printed, re.MULTILINE) for printed in self.each("topicStatus", "-t", "made-SIDE")]
        self.assertEqual((len(ours), len(theirs)), (4 * SHARDS, 4))
        self.each("updateTopicPerm", "-b", "BROKER", "-t", "made-SIDE", "-p", "4")
        self.assertEqual({entry[1:] for entry in self.route(self.ours, "made-ours").values()}, {(4, 4, 4)})
        # What every broker is told, as a command to a cluster does, and with fewer queues to write to.
        for shard in self.shards:
            self.run_admin(self.ours, "updateTopic", "-b", shard, "-t", "made-ours", "-r", "4", "-w", "2", "-p", "6", "-o", "true")
        self.assertEqual({entry[1:] for entry in self.route(self.ours, "made-ours").values()}, {(4, 2, 6)})
        refused = self.each("updateTopic", "-b", "BROKER", "-t", "TBW102", "-r", "4", "-w", "4")
        self.assertEqual(*[re.search(r"CODE: \d+ +DESC: [^\n]*?system topic", text)[0] for text in refused])
        self.assert_alike("updateTopic", "-b", "BROKER", "-t", "typed", "-a", "+message.type=FIFO")
        self.run_admin(self.ours, "deleteTopic", "-c", CLUSTER, "-t", "made-ours")
        self.assertIn("CODE: 17", self.run_admin(self.ours, "topicRoute", "-t", "made-ours"))

    def test_who_consumes_is_shown_as_apache_shows_it(self):
        self.each("updateTopic", "-b", "BROKER", "-t", "watched-SIDE", "-r", "1", "-w", "1")
        self.wait_for("Apache's is told", lambda: "theirs" in self.route(self.apache, "watched-theirs"))
        for number in range(3):
            for printed in self.each("send", "watched-SIDE", "TagA", "NAME", "0", f"body {number}"):
                self.assertIn("SEND_OK", printed)
        self.each("consume", "watchers-SIDE", "watched-SIDE", "TagA || TagB")
        rows = re.compile(r"^(\S+) BROKER 0 (\d+) (\d+) (\d+) (\d+) ", re.MULTILINE)

        def progress():
            return [set(rows.findall(printed)) for printed in self.each("consumerProgress", "-g", "watchers-SIDE")]

        self.wait_for("both have consumed", lambda: all(("watched", "3", "3", "0", "0") in found for found in progress()))
        connections = self.each("consumerConnection", "-g", "watchers-SIDE")
        client = re.compile(r"^\S+@\S+ \S+:\d+ (JAVA \S+)$", re.MULTILINE)
        self.assertEqual([client.findall(printed) for printed in connections], [["JAVA V5_5_0"]] * 2)
        told = [set(printed.partition("Below")[2].splitlines()) for printed in connections]
        self.assertEqual(*told)
        self.assertIn("watched TagA || TagB", told[0])
        self.assertIn("senders", self.each("producer", "-b", "BROKER")[0])
        for printed in self.each("producerConnection", "-g", "senders", "-t", "watched-SIDE"):
            self.assertIn("JAVA V5_5_0", printed)
        stats = [re.search(r"^watched watchers 0 (\S+) \S+ (\d+)", printed, re.MULTILINE) for printed in self.each("statsAll", "-t", "watched-SIDE")]
        self.assertEqual(stats[0][2], "3", "of the last day")
        given = self.run_admin(self.ours, "statsAll", "-t", "watched-ours").split()
        self.assertEqual((float(given[-3]) > 0, given[-1]), (True, "3"), "what was given of late, and within the day")
        self.assertRegex(self.each("consumerProgress")[0], r"(?m)^watchers 1 V5_5_0 PUSH CLUSTERING 0 0$")
        # Brokers without a queue of a topic are in no route: the first queue is the first broker's.
        shown = self.each("queryMsgByOffset", "-t", "watched-SIDE", "-b", "NAME", "-i", "0", "-o", "0")
        tracks = [re.findall(r"MessageTrack \[consumerGroup=(\S+), trackType=(\S+),", printed) for printed in shown]
        self.assertEqual(tracks[0], [("watchers", "CONSUMED")])
        self.assertEqual(*tracks)
        self.assertEqual(*[re.findall(r"^\S+ 0 \d+ \d+ TIME$", printed, re.MULTILINE) for printed in self.each("topicStatus", "-t", "watched-SIDE")])
        self.check_moves()

    def check_moves(self):
        """The group is moved, while it is consumed as and when who did so has left."""
        self.each("resetOffsetByTime", "-g", "watchers-SIDE", "-t", "watched-SIDE", "-s", "0")
        self.wait_for("all comes again", lambda: self.each("consumed", "watchers-SIDE") == ["6", "6"])
        self.each("leave", "watchers-SIDE")
        self.wait_for("nobody is there", lambda: all("not online" in printed for printed in self.each("consumerConnection", "-g", "watchers-SIDE")))

        def missing():
            return [re.search(r"Consume Diff Total: (\d+)", printed)[1] for printed in self.each("consumerProgress", "-g", "watchers-SIDE")]

        for at, expected in [("0", "3"), ("now", "0")]:
            self.each("resetOffsetByTime", "-g", "watchers-SIDE", "-t", "watched-SIDE", "-s", at)
            self.assertEqual(missing(), [expected, expected], at)
        self.each("resetOffsetByTime", "-g", "watchers-SIDE", "-t", "watched-SIDE", "-s", "0")
        self.each("cloneGroupOffset", "-s", "watchers-SIDE", "-d", "cloned-SIDE", "-t", "watched-SIDE", "-o", "true")
        self.each("skipAccumulatedMessage", "-g", "watchers-SIDE", "-t", "watched-SIDE")
        self.assertEqual(missing(), ["0", "0"])
        cloned = self.run_admin(self.ours, "consumerProgress", "-g", "cloned-ours")
        self.assertIn("Consume Diff Total: 3", cloned)
        consumed = self.run_admin(self.ours, "brokerConsumeStats", "-b", self.shards[0])
        self.assertRegex(consumed, r"watched-ours +watchers-ours +ours-0 +0 +3 +3 +0")
        self.assertIn("Diff Total: 3", consumed)

    def test_groups_are_set_up_and_removed(self):
        self.assert_alike("updateSubGroup", "-b", "BROKER", "-g", "settled-SIDE", "-s", "false", "-r", "3", "-d", "true")
        setting = re.compile(r"^(consumeEnable|consumeBroadcastEnable|retryMaxTimes|retryQueueNums|groupName|groupRetryPolicy) = (.+)$", re.MULTILINE)
        ours, theirs = [setting.findall(printed) for printed in self.each("getConsumerConfig", "-g", "settled-SIDE")]
        self.assertEqual((ours, len(theirs)), (theirs * SHARDS, 6), "every broker has it")
        policy = '{"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":3000,"max":60000,"multiplier":4}}'
        self.assert_alike("updateSubGroup", "-b", "BROKER", "-g", "settled-SIDE", "-p", policy)
        ours, theirs = [setting.findall(printed) for printed in self.each("getConsumerConfig", "-g", "settled-SIDE")]
        self.assertEqual((ours, len(theirs)), (theirs * SHARDS, 6), "as it was set")
        self.assertIn("initial=3000, max=60000, multiplier=4", str(ours))
        self.run_admin(self.ours, "deleteSubGroup", "-b", self.shards[-1], "-g", "settled-ours", "-r", "true")
        self.assertNotIn("settled", self.run_admin(self.ours, "getConsumerConfig", "-g", "settled-ours"))

    def test_settings_are_shown_and_changed_as_far_as_they_can_be(self):
        def setting(printed, name):
            return re.search(rf"^{name} += +(\S.*?) *$", printed, re.MULTILINE)[1]

        ours, theirs = [self.run_admin(server, "getBrokerConfig", "-b", broker)
                        for server, broker in [(self.ours, self.shards[-1]), (self.apache, self.apache_broker)]]
        self.assertEqual((setting(ours, "brokerName"), setting(theirs, "brokerName")), (OURS[-1], "theirs"))
        for name in ["brokerClusterName", "brokerId", "brokerPermission", "maxMessageSize", "autoCreateTopicEnable", "messageDelayLevel"]:
            self.assertEqual(setting(ours, name), setting(theirs, name), name)
        changed = self.run_admin(self.ours, "updateBrokerConfig", "-b", self.shards[0], "-k", "fileReservedTime", "-v", "73")
        self.assertIn("success", changed)
        self.assertEqual(setting(self.run_admin(self.ours, "getBrokerConfig", "-b", self.shards[-1]), "fileReservedTime"), "73")
        refused = self.run_admin(self.ours, "updateBrokerConfig", "-b", self.shards[0], "-k", "listenPort", "-v", "1")
        self.assertIn("cannot be changed while the broker runs", refused)
        self.assertIn("orderMessageEnable", self.run_admin(self.ours, "getNamesrvConfig"))

    def test_a_broker_is_closed_to_writers_and_opened_again(self):
        def permissions():
            return {name: entry[3] for name, entry in self.route(self.ours, "orders").items()}

        self.run_admin(self.ours, "wipeWritePerm", "-b", OURS[0])
        self.assertEqual(permissions(), {name: 4 if name == OURS[0] else 6 for name in OURS})
        self.run_admin(self.ours, "addWritePerm", "-b", OURS[0])
        self.assertEqual(set(permissions().values()), {6})

    def test_consumers_are_asked_how_they_are_and_to_process_a_message_again(self):
        self.each("updateTopic", "-b", "BROKER", "-t", "asked-SIDE", "-r", "1", "-w", "1")
        self.wait_for("Apache's is told", lambda: "theirs" in self.route(self.apache, "asked-theirs"))
        sent = self.each("send", "asked-SIDE", "TagA", "NAME", "0", "the body")
        places = [re.search(r"offsetMsgId=(\w+)", printed)[1] for printed in sent]
        self.each("consume", "askers-SIDE", "asked-SIDE", "TagA")
        self.wait_for("both have consumed", lambda: self.each("consumed", "askers-SIDE") == ["1", "1"])
        clients = [re.search(r"^(\S+@\S+) ", printed, re.MULTILINE)[1] for printed in self.each("consumerConnection", "-g", "askers-SIDE")]
        told = []
        for number, (server, side) in enumerate([(self.ours, "ours"), (self.apache, "theirs")]):
            group, topic, client = f"askers-{side}", f"asked-{side}", clients[number]
            condition = self.run_admin(server, "consumerStatus", "-g", group, "-i", client, "-s", "true")
            self.assertIn("ConsumeMessageThread_", condition, "what its threads are at")
            nobody = self.run_admin(server, "consumerStatus", "-g", group, "-i", "nobody@1")
            again = self.run_admin(server, "queryMsgById", "-t", topic, "-i", places[number], "-g", group, "-d", client)
            self.assertIn("CR_SUCCESS", again)
            shown = self.run_admin(server, "queryCq", "-t", topic, "-q", "0", "-i", "0", "-c", "5", "-b", [self.shards[0], self.apache_broker][number])
            told.append((re.findall(r"^#.*#$", condition, re.MULTILINE), re.search(r"CODE: \d+", nobody)[0],
                         re.findall(r"\d+", self.plain(shown))[-1:]))
        self.assertEqual(*told)
        self.assertEqual(self.each("consumed", "askers-SIDE"), ["2", "2"])
        self.each("leave", "askers-SIDE")

    def until(self, server, pattern, *arguments):
        """A command that does not end by itself, until it prints something."""
        command = self.java.command("org.apache.rocketmq.tools.command.MQAdminStartup", *arguments, "-n", server)
        process = self.until_the_end(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"))
        for line in process.stdout:
            if found := re.search(pattern, line):
                process.kill()
                return found
        return None

    def test_what_sends_take_is_measured(self):
        row = re.compile(r"rt=\d+ms, SendResult=SendResult \[sendStatus=SEND_OK")
        for printed in self.each("sendMsgStatus", "-b", "NAME", "-s", "128", "-c", "3"):
            self.assertGreaterEqual(len(row.findall(printed)), 3, printed)
        for server in [self.ours, self.apache]:
            found = self.until(server, r"^\S+ +(ours-0|theirs) +\S+ +(\d+) +(\d+)", "clusterRT", "-c", CLUSTER, "-a", "3", "-s", "128", "-i", "1")
            self.assertEqual((found[2], found[3]), ("3", "0"), "all of them arrived")
        printed = self.run_admin(self.ours, "checkMsgSendRT", "-t", "orders", "-a", "4", "-s", "128")
        self.assertEqual(len(re.findall(r"^ours-\d +\d+ +true +\d+", printed, re.MULTILINE)), 4, printed)

    def test_users_are_the_keys(self):
        self.assertEqual(self.run_admin(self.ours, "listUser", "-b", self.shards[0]), "", "everybody may do everything")
        self.assertIn("--access-keys", self.run_admin(self.ours, "createUser", "-b", self.shards[0], "-u", "u", "-p", "p"))

    def test_nothing_is_made_under_a_name_of_rocketmqs_own(self):
        for name in ["TBW102", "rmq_sys_anything"]:
            before = self.route(self.ours, name)
            self.assertIn("is forbidden", self.run_admin(self.ours, "send", name, "TagA", OURS[0], "0", "body"), name)
            self.assertEqual(self.route(self.ours, name), before)

    def test_zz_a_broker_that_stops_is_gone(self):
        self.theirs.terminate()
        self.theirs.wait(PATIENCE)
        self.wait_for("it is gone", lambda: "theirs" not in self.run_admin(self.ours, "clusterList"))
        self.assertEqual(list(self.route(self.ours, "orders")), OURS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
