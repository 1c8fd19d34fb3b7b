"""The package rocketmq-client-python 2.0.0, unmodified, on the C++ library that the wheel rocketmq 0.4.4 brings (shim.c), against
the real broker: what it sends is what `turbopump consume` reads. Environment: TURBOPUMP (the binary), SHARDS."""

import time
import unittest

from rocketmq.client import Message, Producer, TransactionMQProducer
from test_remoting import SHARDS, Broker


def message(topic, body, number):
    made = Message(topic)
    made.set_body(body)
    made.set_keys("key%d" % number)
    made.set_tags("tag%d" % (number % 3))
    made.set_property("number", str(number))
    return made


class ClientPython(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.producer = Producer("producers")
        cls.producer.set_name_server_address(cls.broker.names)
        cls.producer.start()

    @classmethod
    def tearDownClass(cls):
        cls.producer.shutdown()
        cls.broker.stop()

    def check(self, entry, number):
        self.assertEqual((entry["key"], entry["tag"]), ("key%d" % number, "tag%d" % (number % 3)))
        self.assertEqual(entry["properties"]["number"], str(number))

    def test_synchronous_sends_arrive_with_everything_they_have(self):
        ids = {}
        for number in range(20):
            body = "sync-%d \u4e2d" % number
            ids[body] = (number, self.producer.send_sync(message("sync", body, number)).msg_id)
        stored = {entry["body"]: entry for entry in self.broker.messages("sync")}
        self.assertEqual(len(stored), len(ids))
        for body, (number, unique_id) in ids.items():
            self.check(stored[body], number)
            self.assertEqual(stored[body]["unique_id"], unique_id)
        self.assertEqual({entry["queue"] for entry in stored.values()}, set(range(4 * SHARDS)))

    def test_one_way_sends_arrive(self):
        # The topic is there: a one-way send whose topic is still to be made is not waited for.
        self.producer.send_sync(message("one-way", "first", 0))
        for number in range(1, 20):
            self.producer.send_oneway(message("one-way", "one-way-%d" % number, number))
        deadline = time.monotonic() + 10
        while len(found := self.broker.messages("one-way")) < 20 and time.monotonic() < deadline:
            time.sleep(0.1)
        stored = {entry["body"]: entry for entry in found}
        self.assertEqual(len(stored), 20)
        for number in range(1, 20):
            self.check(stored["one-way-%d" % number], number)

    @unittest.skip("in order: the C++ library of the wheel has no CreateOrderlyProducer")
    def test_messages_in_order(self):
        Producer("orderly", orderly=True)

    @unittest.skip("transactions: the C++ library of the wheel has no CreateTransactionProducer")
    def test_transactions(self):
        TransactionMQProducer("transactions", None)


if __name__ == "__main__":
    unittest.main(verbosity=2)
