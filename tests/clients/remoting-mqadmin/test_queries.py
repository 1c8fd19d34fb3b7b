"""RocketMQ's own `mqadmin`, unmodified, looks messages up in the real broker: by key, by the id that their producer gave them, by
place, and by the traces that clients leave of them.

SHARDS says how many shards, TURBOPUMP names the binary, MQADMIN the directory with what pom.xml names in `lib`."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import unittest

from test_mqadmin import OURS, SHARDS, Java

PATIENCE = 60


class Queries(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp()
        cls.java = Java(cls.work)
        command = [os.environ["TURBOPUMP"], "serve", "--data", cls.work + "/data", "--listen", "127.0.0.1:0", "--http", "none",
                   "--namesrv", "127.0.0.1:0", "--node", "ours", "--shards", str(SHARDS), "--segment-bytes", "16MiB",
                   "--log-level", "warn", "--buffered-io"]
        broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        cls.processes = [broker]
        cls.shards = []
        for line in broker.stdout:
            if found := re.match(r"  shard \d+ .*listens on (\S+)", line):
                cls.shards.append(found[1])
            if found := re.search(r"name server listens on (\S+)", line):
                cls.names = found[1]
            if line == "ready\n":
                break
        cls.processes.append(cls.java.start_admin())
        cls.turbopump("topic", "create", "orders", "--queues", str(2 * SHARDS))
        # The command ends before it could make the topic of traces by sending to it.
        cls.turbopump("topic", "create", "RMQ_SYS_TRACE_TOPIC", "--queues", str(SHARDS))
        lines = "".join(f"key-{number % 4}\tbody-{number}\n" for number in range(12))
        cls.turbopump("produce", "orders", "--key-field", "1", lines=lines)
        cls.stored = [json.loads(line) for line in cls.turbopump("consume", "orders", "-o", "json").splitlines()]

    @classmethod
    def tearDownClass(cls):
        for process in cls.processes:
            process.kill()
            process.wait()
        cls.processes[0].stdout.close()
        shutil.rmtree(cls.work, ignore_errors=True)

    @classmethod
    def turbopump(cls, *arguments, lines=None):
        command = [os.environ["TURBOPUMP"], *arguments, "--server", cls.shards[0]]
        return subprocess.run(command, check=True, input=lines, capture_output=True, encoding="utf-8").stdout

    def admin(self, *arguments):
        return self.java.mqadmin(self.names, *arguments)

    def shown(self, *arguments):
        """What is shown of one message, by the names of its lines."""
        return dict(re.findall(r"^(\S.*?): +(.*)$", self.admin(*arguments), re.MULTILINE))

    def test_messages_are_found_by_key(self):
        printed = self.admin("queryMsgByKey", "-t", "orders", "-k", "key-1")
        found = {tuple(line.split()[:3]) for line in printed.splitlines() if line and not line.startswith("#")}
        ours = [entry for entry in self.stored if entry["key"] == "key-1"]
        expected = {(entry["id"], str(entry["queue"] // SHARDS), str(entry["offset"])) for entry in ours}
        self.assertEqual(len(expected), 3)
        self.assertEqual(found, expected, printed)
        print("\nworks: look-up", flush=True)

    def test_messages_are_found_by_place(self):
        for entry in self.stored[::5]:
            shown = self.shown("queryMsgById", "-t", "orders", "-i", entry["id"])
            self.assertEqual((shown["OffsetID"], shown["Queue ID"], shown["Queue Offset"], shown["Keys"]),
                             (entry["id"], str(entry["queue"] // SHARDS), str(entry["offset"]), f"[{entry['key']}]"))

    def test_a_message_is_found_by_the_id_of_its_producer_and_its_trace_tells_who_that_was(self):
        # The command sends once in a process.
        sent = self.admin("sendMessage", "-t", "orders", "-p", "sent by mqadmin", "-k", "of-mqadmin", "-c", "red", "-m", "true")
        broker, queue, _, unique_id = sent.splitlines()[-1].split()
        self.assertIn(broker, OURS)
        shown = self.shown("queryMsgByUniqueKey", "-t", "orders", "-i", unique_id)
        self.assertEqual((shown["Queue ID"], shown["Keys"], shown["Tags"]), (queue, "[of-mqadmin]", "[red]"), shown)
        # A trace is sent with others, within five seconds.
        deadline = time.monotonic() + PATIENCE
        while "Pub" not in (printed := self.admin("queryMsgTraceById", "-i", unique_id)):
            self.assertLess(time.monotonic(), deadline, printed)
            time.sleep(0.5)
        self.assertIn("success", printed)
        print("\nworks: send", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
