"""Our commands with the names and flags of RocketMQ's mqadmin, beside mqadmin itself: each to our broker and to Apache's, and what
both print has to be the same, word by word.

SHARDS says how many shards, TURBOPUMP names the binary, MQADMIN the directory with what pom.xml names in `lib`."""

import json
import os
import re
import subprocess
import unittest

from test_mqadmin import CLUSTER, OURS, Brokers

# Lines in which mqadmin says what a command is made of: the path of a file that it writes a body to, and how Java writes its maps.
BODY = re.compile(r"^(Message Body( Path)?|Properties): .*$", re.MULTILINE)


class Verbs(Brokers):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sides = [(cls.ours, cls.shards[0], OURS[0], "ours"), (cls.apache, cls.apache_broker, "theirs", "theirs")]
        for server, address, name, side in cls.sides:
            cls.run_admin(server, "updateTopic", "-b", address, "-t", f"told-{side}", "-r", "2", "-w", "2")
        cls.wait_for("Apache's is told", lambda: "theirs" in cls.run_admin(cls.apache, "topicRoute", "-t", "told-theirs"))
        for server, address, name, side in cls.sides:
            for number in range(5):
                printed = cls.run_admin(server, "send", f"told-{side}", "TagA", name, str(number % 2), f"body {number}")
                assert "SEND_OK" in printed, printed
            cls.run_admin(server, "consume", f"readers-{side}", f"told-{side}", "*")
        for server, _, _, side in cls.sides:
            cls.wait_for("all is consumed", lambda at=server, of=side: cls.run_admin(at, "consumed", f"readers-{of}").strip() == "5")
            committed = re.compile(rf"told-{side} .* 3 +3 +0 ")
            cls.wait_for("all is committed",
                         lambda at=server, of=side: committed.search(cls.run_admin(at, "consumerProgress", "-g", f"readers-{of}")))

    def verb(self, server, *arguments, code=0):
        """What our command prints, and its error where it fails."""
        done = subprocess.run([os.environ["TURBOPUMP"], *arguments, "-n", server], capture_output=True, encoding="utf-8")
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stderr

    def words(self, side, arguments):
        _, address, name, of = side
        return [word.replace("BROKER", address).replace("NAME", name).replace("SIDE", of) for word in arguments]

    def lines(self, text):
        """Lines in some order, for what mqadmin prints in that of a hash table."""
        return sorted(filter(None, map(str.strip, BODY.sub("", self.plain(text)).splitlines())))

    def alike(self, *arguments, leave_out=None, sides=None):
        """The same to both brokers by both commands."""
        for side in sides or self.sides:
            words = self.words(side, arguments)
            mine, theirs = [self.lines(text) for text in [self.verb(side[0], *words), self.run_admin(side[0], *words)]]
            if leave_out:
                mine, theirs = [[leave_out.sub("", line) for line in lines] for lines in [mine, theirs]]
            self.assertEqual(mine, theirs, words)

    def test_topics_are_told_alike(self):
        self.alike("topicList")
        # mqadmin does not add up what brokers tell of it.
        self.alike("topicStatus", "-t", "told-SIDE", leave_out=re.compile("(?<=Topic Put TPS: ).*"))
        self.alike("topicRoute", "-l", "-t", "told-SIDE")
        self.alike("topicClusterList", "-t", "told-SIDE")
        for side in self.sides:
            theirs = re.sub(r'(\d+):"', r'"\1":"', self.run_admin(side[0], "topicRoute", "-t", f"told-{side[3]}"))
            mine = self.verb(side[0], "topicRoute", "-t", f"told-{side[3]}")
            self.assertEqual(json.loads(mine), json.loads(theirs))
            self.assertEqual(mine.splitlines()[:3], theirs.splitlines()[:3], "it is laid out as theirs")

    def test_brokers_are_told_alike(self):
        # Rates and ages change from one moment to the next.
        self.alike("clusterList", leave_out=re.compile(r"\d+\.\d+|\(\d+,\d+ms(\|\d+,\d+ms)?\)"))
        self.alike("clusterList", "-m")
        self.alike("getBrokerConfig", "-b", "BROKER")
        for side in self.sides:
            names = [re.findall(r"^(\S+) *:", text, re.MULTILINE)
                     for text in [self.verb(side[0], "brokerStatus", "-b", side[1]), self.run_admin(side[0], "brokerStatus", "-b", side[1])]]
            self.assertEqual(*[sorted(set(of)) for of in names])

    def test_groups_are_told_alike(self):
        rate = re.compile("(?<=Consume TPS: ).*")
        for more in [[], ["-t", "told-SIDE"], ["-s", "true"]]:
            self.alike("consumerProgress", "-g", "readers-SIDE", *more, leave_out=rate)
        self.alike("consumerConnection", "-g", "readers-SIDE")
        self.alike("producerConnection", "-g", "senders", "-t", "told-SIDE")
        for server, _, _, side in self.sides:
            # Of a group that one of several brokers knows, mqadmin asks any.
            row = re.compile(rf"^readers-{side} +(.*) +\d+ +(\d+)$", re.MULTILINE)
            mine, theirs = [row.findall(text) for text in [self.verb(server, "consumerProgress"), self.run_admin(server, "consumerProgress")]]
            self.assertEqual((mine, mine[0][1]), (theirs, "0"))

    def test_messages_are_told_alike(self):
        self.alike("queryMsgByOffset", "-t", "told-SIDE", "-b", "NAME", "-i", "1", "-o", "1")
        for side in self.sides:
            shown = self.verb(side[0], "queryMsgByOffset", "-t", f"told-{side[3]}", "-b", side[2], "-i", "0", "-o", "0")
            self.assertEqual(re.search(r"^Message Body: +(.*)$", shown, re.MULTILINE)[1], "body 0")
            place = re.search(r"^OffsetID: +(\S+)$", shown, re.MULTILINE)[1]
            words = ["queryMsgById", "-t", f"told-{side[3]}", "-i", place]
            self.assertEqual(*[self.lines(text) for text in [self.verb(side[0], *words), self.run_admin(side[0], *words)]])
        parts = re.compile(r"(properties=\{)[^}]*\}")
        for more in [[], ["-s", "TagB"], ["-d", "false"]]:
            self.alike("printMsg", "-t", "told-SIDE", *more, leave_out=parts)
        # mqadmin can run it once in a process.
        self.alike("consumeMessage", "-t", "told-SIDE", "-b", "NAME", "-i", "0", leave_out=parts, sides=self.sides[:1])
        for server, _, name, side in self.sides:
            one = self.verb(server, "consumeMessage", "-t", f"told-{side}", "-b", name, "-i", "0", "-o", "1", "-c", "1")
            self.assertEqual(re.findall("BODY: (.*)", one), ["body 2"])

    def test_what_is_sent_is_found_by_both(self):
        for side in self.sides:
            server, _, name, of = side
            sent = self.verb(server, "sendMessage", "-t", f"told-{of}", "-p", "one more", "-k", "key-of-it", "-b", name, "-i", "1")
            broker, queue, result, unique_id = sent.splitlines()[1].split()
            self.assertEqual((broker, queue, result), (name, "1", "SEND_OK"))
            found = ["queryMsgByKey", "-t", f"told-{of}", "-k", "key-of-it"]
            mine, theirs = [self.lines(text) for text in [self.verb(server, *found), self.run_admin(server, *found)]]
            self.assertEqual(mine, theirs)
            self.assertIn(unique_id, mine[-1])
            shown = self.verb(server, "queryMsgByUniqueKey", "-t", f"told-{of}", "-i", unique_id)
            self.assertRegex(shown, r"(?m)^Message Body: +one more$")

    def test_topics_and_groups_are_set_up_alike(self):
        self.alike("updateTopic", "-b", "BROKER", "-t", "set-SIDE", "-r", "3", "-w", "2", "-a", "+message.type=FIFO")
        self.alike("updateSubGroup", "-b", "BROKER", "-g", "set-SIDE", "-s", "false", "-r", "3")
        self.alike("updateSubGroup", "-b", "BROKER", "-g", "set-SIDE", "-p", '{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000]}}')
        for server, address, name, side in self.sides:
            self.assertIn(f"[set-{side}] from broker", self.verb(server, "deleteSubGroup", "-b", address, "-g", f"set-{side}"))
            self.wait_for("it is told", lambda at=server, of=side: "CODE" not in self.run_admin(at, "topicRoute", "-t", f"set-{of}"))
            self.verb(server, "updateTopicPerm", "-b", address, "-t", f"set-{side}", "-p", "4")
            self.wait_for("it is told", lambda at=server, of=side: {entry[3] for entry in self.route(at, f"set-{of}").values()} == {4})
            self.verb(server, "deleteTopic", "-c", CLUSTER, "-t", f"set-{side}")
            self.assertIn("code 17", self.verb(server, "topicRoute", "-t", f"set-{side}", code=1))
            self.assertIn("code 29", self.verb(server, "updateTopic", "-b", address, "-t", "TBW102", code=1))

    def test_zz_groups_are_moved_alike(self):
        for server, _, _, side in self.sides:
            self.run_admin(server, "leave", f"readers-{side}")
            self.wait_for("nobody is there", lambda at=server, of=side: "not online" in self.run_admin(at, "consumerConnection", "-g", f"readers-{of}"))
        for server, address, name, side in self.sides:
            for words in [["resetOffsetByTime", "-g", f"readers-{side}", "-t", f"told-{side}", "-s", "0"],
                          ["skipAccumulatedMessage", "-g", f"readers-{side}", "-t", f"told-{side}"]]:
                mine = self.verb(server, *words)
                missing = json.loads(self.verb(server, "consumerProgress", "-g", f"readers-{side}", "-t", f"told-{side}", "-o", "json"))["diff"]
                theirs = self.run_admin(server, *words)
                self.assertEqual(self.lines(mine), self.lines(theirs))
                self.assertEqual(missing == 0, words[0] == "skipAccumulatedMessage", (words, missing))
            self.verb(server, "updateSubGroup", "-b", address, "-g", f"clones-{side}")
            self.verb(server, "cloneGroupOffset", "-s", f"readers-{side}", "-d", f"clones-{side}", "-t", f"told-{side}")
            told = self.verb(server, "consumerProgress", "-g", f"clones-{side}", "-t", f"told-{side}", "-o", "json")
            self.assertEqual(json.loads(told)["diff"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
