"""The PyPI wheel rocketmq 0.4.4, which brings the C++ client, unmodified, against the real broker: what it sends is what
`turbopump consume` reads, and what it pulls. Environment: TURBOPUMP (the binary), SHARDS."""

import subprocess
import threading
import time
import unittest

from broker import BINARY, SHARDS, Broker, message
from rocketmq.client import Producer, PullConsumer

PATIENCE = 60


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.producer = Producer("producers")
        cls.producer.set_namesrv_addr(cls.broker.names)
        # What is sent a second time, because a busy machine's answer is late, would be there twice.
        cls.producer.set_timeout(60_000)
        cls.producer.start()

    @classmethod
    def tearDownClass(cls):
        cls.producer.shutdown()
        cls.broker.stop()

    def stored(self, topic, count):
        """The topic's messages once there are so many, by their bodies."""
        deadline = time.time() + PATIENCE
        while True:
            try:
                found = self.broker.messages(topic)
            except subprocess.CalledProcessError:
                # A one-way send that is under way may still have its topic to make.
                if time.time() > deadline:
                    raise
                found = []
            if len(found) >= count or time.time() > deadline:
                break
            time.sleep(0.2)
        self.assertEqual(len(found), count)
        bodies = {entry["body"]: entry for entry in found}
        self.assertEqual(len(bodies), count)
        return bodies

    def check(self, entry, number, unique_id=None):
        self.assertEqual((entry["key"], entry["tag"]), ("key%d" % number, "tag%d" % (number % 3)))
        self.assertEqual(entry["properties"]["number"], str(number))
        self.assertEqual(entry["properties"].get("WAIT"), None)
        if unique_id:
            self.assertEqual(entry["unique_id"], unique_id)

    def test_synchronous_sends_arrive_with_everything_they_have(self):
        ids = {}
        for number in range(40):
            body = "sync-%d \u4e2d" % number
            ids[body] = (number, self.producer.send_sync(message("sync", body, number)).msg_id)
        stored = self.stored("sync", len(ids))
        for body, (number, unique_id) in ids.items():
            self.check(stored[body], number, unique_id)
        # Four queues of each shard, and all of them are used.
        self.assertEqual({entry["queue"] for entry in stored.values()}, set(range(4 * SHARDS)))
        print("\nworks: send", flush=True)

    def test_compressed_bodies_are_readable(self):
        body = "0123456789abcdef" * 512
        self.producer.send_sync(message("large", body, 1))
        self.check(self.stored("large", 1)[body], 1)

    def test_one_way_sends_arrive(self):
        for number in range(50):
            self.producer.send_oneway(message("one-way", "one-way-%d" % number, number))
        stored = self.stored("one-way", 50)
        for number in range(50):
            self.check(stored["one-way-%d" % number], number)

    def test_asynchronous_sends_are_answered_each(self):
        done, results, errors = threading.Semaphore(0), [], []

        def succeeded(result):
            results.append(result.msg_id)
            done.release()

        def failed(error):
            errors.append(error)
            done.release()

        for number in range(100):
            self.producer.send_async(message("async", "async-%d" % number, number), succeeded, failed)
        for _ in range(100):
            self.assertTrue(done.acquire(timeout=PATIENCE))
        self.assertEqual((errors, len(set(results))), ([], 100))
        self.assertEqual({entry["unique_id"] for entry in self.stored("async", 100).values()}, set(results))

    def test_a_batch_is_the_messages_it_is_made_of(self):
        self.producer.send_sync(message("batches", "first", 0))
        self.producer.send_batch([message("batches", "batch-%d" % number, number) for number in range(1, 11)])
        stored = self.stored("batches", 11)
        for number in range(1, 11):
            self.check(stored["batch-%d" % number], number)
        places = {(entry["queue"], entry["offset"] - number) for number, entry in
                  ((number, stored["batch-%d" % number]) for number in range(1, 11))}
        self.assertEqual(len(places), 1, "one queue, consecutive offsets")

    def test_a_message_comes_at_its_time(self):
        made = message("delayed", "delayed", 1)
        # The first of RocketMQ's levels is a second.
        made.set_delay_time_level(1)
        begun = time.monotonic()
        self.producer.send_sync(made)
        self.check(self.stored("delayed", 1)["delayed"], 1)
        self.assertGreaterEqual(time.monotonic() - begun, 1)
        print("\nworks: delay", flush=True)

    def test_what_is_pulled_is_what_is_stored(self):
        # Its consumer knows a queue by its number alone: of several brokers it would mix them up.
        subprocess.run([BINARY, "topic", "create", "pulls", "--queues", "4" if SHARDS == 1 else "1", "--server",
                        self.broker.native], check=True, stdout=subprocess.DEVNULL)
        for number in range(40):
            self.producer.send_sync(message("pulls", "pull-%d \u4e2d" % number, number))
        self.producer.send_sync(message("pulls", "0123456789abcdef" * 512, 40))
        consumer = PullConsumer("pullers")
        consumer.set_namesrv_addr(self.broker.names)
        consumer.start()

        def pulled(*arguments):
            # The next message takes the memory of the last one.
            return {found.body.decode(): {
                "key": found.keys.decode(), "tag": found.tags.decode(), "number": found.get_property("number").decode(),
                "unique_id": found.id, "topic": found.topic, "offset": found.queue_offset, "queue": found.queue_id * SHARDS,
                "deliveries": found.reconsume_times} for found in consumer.pull("pulls", *arguments)}

        stored = {body: {
            "key": entry["key"], "tag": entry["tag"], "number": entry["properties"]["number"], "unique_id": entry["unique_id"],
            "topic": "pulls", "offset": entry["offset"], "queue": entry["queue"], "deliveries": 0}
            for body, entry in self.stored("pulls", 41).items()}
        self.assertEqual(pulled(), stored)
        # It goes on where it was, unless it forgets that.
        self.assertEqual(pulled(), {})
        PullConsumer.offset_table.clear()
        tagged = {body: entry for body, entry in stored.items() if entry["tag"] == "tag1"}
        self.assertEqual(pulled("tag1"), tagged)
        consumer.shutdown()
        # Of several brokers it takes queues of one number for each other.
        if SHARDS == 1:
            print("\nworks: pull queue by queue", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
