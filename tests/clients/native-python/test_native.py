"""Runs the client that was written from docs/native-protocol.md against the real broker.

TURBOPUMP names the binary, SHARDS the number of shards; with TLS=1 everything goes within TLS.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import client
from client import Connection, Refused

SHARDS = os.environ.get("SHARDS", "1")
FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/tls/")
AUTHORITY = FILES + "certificate.pem" if os.environ.get("TLS") == "1" else None


class Native(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.data = tempfile.mkdtemp()
        command = [os.environ["TURBOPUMP"], "serve", "--data", cls.data + "/data", "--listen", "127.0.0.1:0", "--http", "none", "--namesrv", "none",
                   "--shards", SHARDS, "--segment-bytes", "16MiB", "--log-level", "warn", "--buffered-io"]
        if AUTHORITY:
            command += ["--tls-certificate", AUTHORITY, "--tls-key", FILES + "key.pem", "--tls-mode", "enforcing"]
        cls.broker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        cls.address = None
        for line in cls.broker.stdout:
            found = re.search(r"shard 0 on core .* listens on (\S+)", line)
            cls.address = found.group(1) if found else cls.address
            if line.startswith("ready"):
                break
        assert cls.address, "the broker does not say where it listens"
        # What else it says is nobody's to wait for.
        threading.Thread(target=cls.broker.stdout.read, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.send_signal(signal.SIGTERM)
        status = cls.broker.wait(timeout=30)
        cls.broker.stdout.close()
        shutil.rmtree(cls.data)
        assert status == 0, f"the broker has ended with {status}"

    def setUp(self):
        self.connection = Connection(self.address, AUTHORITY)
        self.addCleanup(self.connection.close)
        self.topic = "native-" + re.sub(r"\W", "-", self.id().rsplit(".", 1)[-1])

    def test_crc32c_is_the_one_that_the_document_means(self):
        self.assertEqual(client.crc32c(b"123456789"), 0xE3069283)

    def test_messages_come_back_as_they_were_sent(self):
        topic_id = self.connection.create_topic(self.topic, 3)
        with self.assertRaises(Refused) as refused:
            self.connection.create_topic(self.topic, 3)
        self.assertEqual(refused.exception.status, client.TOPIC_EXISTS)
        addresses, node, routed_id, queues = self.connection.route(self.topic)
        self.assertEqual((routed_id, queues, len(addresses)), (topic_id, 3, int(SHARDS)))
        self.assertEqual(node, self.connection.node)
        for queue in range(queues):
            # To the shard that owns the queue, after a look at who answers there.
            owner = Connection(addresses[queue % len(addresses)], AUTHORITY)
            self.addCleanup(owner.close)
            self.assertEqual((owner.node, owner.shard), (node, queue % len(addresses)))
            sent = [{"key": f"k{n}", "tag": "blue", "properties": {"n": str(n)}, "body": "x" * n} for n in range(5)]
            offset = owner.base_offset(owner.send_batch(topic_id, queue, sent))
            found, next_offset = owner.fetch(topic_id, queue, offset + 1)
            self.assertEqual(found, [dict(message, offset=n) for n, message in enumerate(sent)][1:])
            self.assertEqual(next_offset, 5)
            # Any shard takes any request.
            self.assertEqual(self.connection.fetch(topic_id, queue, 1)[0], found)
        for what in ["send", "pull", *(["TLS"] if AUTHORITY else [])]:
            print(f"\nworks: {what}", flush=True)

    def test_batches_of_one_connection_keep_their_order(self):
        topic_id = self.connection.create_topic(self.topic, 1)
        sent = [self.connection.send_batch(topic_id, 0, [{"body": str(n)}]) for n in range(200)]
        # Answers may be waited for in any order.
        offsets = [self.connection.base_offset(correlation) for correlation in reversed(sent)]
        self.assertEqual(offsets, list(reversed(range(200))))
        found = []
        while len(found) < 200:
            more, _ = self.connection.fetch(topic_id, 0, len(found))
            found += more
        self.assertEqual([message["body"] for message in found], [str(n) for n in range(200)])

    def test_a_fetch_waits_for_the_next_message(self):
        topic_id = self.connection.create_topic(self.topic, 1)
        self.assertEqual(self.connection.fetch(topic_id, 0, 0), ([], 0))
        other = Connection(self.address, AUTHORITY)
        self.addCleanup(other.close)
        fields = {0: ("u32", topic_id), 1: ("u32", 0), 2: ("u64", 0), 5: ("u32", 20_000)}
        waiting = other.send(client.FETCH, fields)
        self.connection.base_offset(self.connection.send_batch(topic_id, 0, [{"body": "late"}]))
        begun = time.monotonic()
        _, payload = other.wait(waiting, client.FETCHED)
        self.assertEqual([message["body"] for message in client.messages_of(payload, 0)], ["late"])
        self.assertLess(time.monotonic() - begun, 15)
        with self.assertRaises(Refused) as refused:
            self.connection.fetch(topic_id, 0, 99)
        self.assertEqual(refused.exception.status, client.OFFSET_OUT_OF_RANGE)

    def test_a_group_goes_on_where_it_left_off(self):
        topic_id = self.connection.create_topic(self.topic, 1)
        group = "group-of-" + self.topic
        self.connection.base_offset(self.connection.send_batch(topic_id, 0, [{"body": str(n)} for n in range(10)]))
        self.assertIsNone(self.connection.committed(group, topic_id, 0))
        self.connection.commit(group, topic_id, 0, 7)
        offset = self.connection.committed(group, topic_id, 0)
        self.assertEqual([message["body"] for message in self.connection.fetch(topic_id, 0, offset)[0]], ["7", "8", "9"])

    def test_two_members_share_the_queues(self):
        topic_id = self.connection.create_topic(self.topic, 4)
        group = "group-of-" + self.topic
        generation, session, queues = {"a": 0, "b": 0}, {}, {"a": [], "b": []}
        deadline = time.monotonic() + 60
        settled = {"a": False, "b": False}
        while not (all(settled.values()) and len(queues["a"]) == len(queues["b"]) == 2):
            self.assertLess(time.monotonic(), deadline, f"{queues}")
            for member in ("a", "b"):
                # A queue that is gone was read to the end here, so the join that follows releases it.
                generation[member], queues[member], settled[member], session[member] = self.connection.join(
                    group, member, [self.topic], generation[member])
            time.sleep(0.05)
        self.assertEqual(sorted(queues["a"] + queues["b"]), [(topic_id, queue) for queue in range(4)])
        queue = queues["a"][0][1]
        self.connection.commit(group, topic_id, queue, 0, "a", generation["a"])
        with self.assertRaises(Refused):
            self.connection.commit(group, topic_id, queue, 0, "b", generation["b"])
        self.assertEqual(self.connection.fetch(topic_id, queue, 0, session=session["a"]), ([], 0))
        with self.assertRaises(Refused):
            self.connection.fetch(topic_id, queue, 0, session=session["b"])
        self.connection.leave(group, "b")
        with self.assertRaises(Refused) as refused:
            self.connection.join(group, "b", [self.topic], generation["b"])
        self.assertEqual(refused.exception.status, client.MEMBER_UNKNOWN)

    def test_what_cannot_be_read_is_answered_and_the_connection_ends(self):
        self.connection.socket.sendall(b"\xff" * 16)
        with self.assertRaises(Refused) as refused:
            self.connection.wait(1, client.DONE)
        self.assertEqual(refused.exception.status, 2)
        with self.assertRaises(ConnectionError):
            self.connection._read(1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
