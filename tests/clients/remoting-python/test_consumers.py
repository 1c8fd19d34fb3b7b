"""The push consumer of the PyPI wheel rocketmq 0.4.4, which brings the C++ client, unmodified, against the real broker: consumers
of a group divide its messages, whoever comes, leaves or dies, also in order; those that broadcast get all of them. Each consumer is a process of
its own. Environment: TURBOPUMP (the binary), SHARDS. With arguments it is such a consumer."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from broker import Broker, message
from rocketmq.client import MessageModel, Producer, PushConsumer

PATIENCE = 60
# How often a test is run when its consumers have waited in vain for an answer.
ATTEMPTS = 3


def consume(names, group, topic, expression, model, instance):
    """Prints what it is given, a line each, until it is asked to stop."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    is_in_order = model == "IN_ORDER"
    consumer = PushConsumer(group, orderly=is_in_order,
                            message_model=MessageModel.CLUSTERING if is_in_order else MessageModel[model])
    consumer.set_namesrv_addr(names)
    consumer.set_instance_name(instance)

    def given(found):
        shown = {"body": found.body.decode(), "keys": found.keys.decode(), "tag": found.tags.decode(),
                 "number": found.get_property("number").decode()}
        # Whole, since the client calls from several threads.
        os.write(1, (json.dumps(shown) + "\n").encode())

    consumer.subscribe(topic, given, expression)
    consumer.start()
    while not stopped.wait(0.1):
        pass
    consumer.shutdown()


class Consumer:
    """Such a process, and what it was given."""

    is_ended = False

    def __init__(self, *arguments):
        self.name = arguments[-1]
        self.bodies, self.wrong = [], []
        # It writes there what it does, and where it is when it broadcasts.
        self.home = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True,
                                        env=dict(os.environ, HOME=self.home.name))
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            if not line.startswith("{"):
                continue
            found = json.loads(line)
            number = int(found["number"])
            if (found["keys"], found["tag"]) != ("key%d" % number, "tag%d" % (number % 3)):
                self.wrong.append(found)
            self.bodies.append(found["body"])

    def end(self, how):
        self.process.send_signal(how)
        self.is_ended = True
        self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.process.stdout.close()

    def log(self):
        """The lines that its library has written down."""
        lines = []
        for directory, _, names in os.walk(self.home.name):
            for name in names:
                with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
                    lines += file.read().splitlines()
        return lines

    def has_waited_in_vain(self):
        return any("wait response timeout" in line for line in self.log())

    def story(self):
        """What it was given, and what its library has written down."""
        said = ["%s was given %d messages: %s" % (self.name, len(self.bodies), self.bodies[-100:])]
        if not self.is_ended and self.process.poll() is not None:
            said.append("it has ended by itself, with %d" % self.process.returncode)
        lines = self.log()
        return "\n".join(said + lines[:150] + lines[-150:])


def once_more_on_a_slow_machine(test):
    """This library waits a second for the answer to a lock, and a few for others. On a machine that is too busy for that it closes its
    connection, forgets the pulls that were under way for half a minute, and one that falls in between for ever, whatever the broker
    does. So a test that fails is run again, with another group and topic, if a consumer's own log says that it was so."""
    @functools.wraps(test)
    def run(self):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return test(self, "-%d" % attempt)
            except AssertionError:
                if attempt == ATTEMPTS or not any(consumer.has_waited_in_vain() for consumer in self.consumers):
                    raise
            print("\nonce more: a consumer has waited in vain for an answer", flush=True)
            self.tearDown()
            self.setUp()
    return run


class Consumers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker()
        cls.producer = Producer("producers")
        cls.producer.set_namesrv_addr(cls.broker.names)
        # What is sent a second time, because a busy machine's answer is late, would be there twice.
        cls.producer.set_timeout(60_000)
        cls.producer.start()
        cls.sent = 0

    @classmethod
    def tearDownClass(cls):
        cls.producer.shutdown()
        cls.broker.stop()

    def setUp(self):
        self.consumers = []

    def tearDown(self):
        for consumer in self.consumers:
            if not consumer.is_ended:
                consumer.end(signal.SIGKILL)
            consumer.home.cleanup()

    def start(self, group, topic, expression, model, instance):
        consumer = Consumer(self.broker.names, group, topic, expression, model, instance)
        self.consumers.append(consumer)
        return consumer

    def send(self, topic, count):
        """Sends messages of three tags, and returns their bodies by tag."""
        bodies = {0: set(), 1: set(), 2: set()}
        for _ in range(count):
            number = Consumers.sent
            Consumers.sent += 1
            body = "%s-%d \u4e2d" % (topic, number)
            self.producer.send_sync(message(topic, body, number))
            bodies[number % 3].add(body)
        return bodies

    def wait_for(self, what, is_so):
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            is_there = all(consumer.is_ended or consumer.process.poll() is None for consumer in self.consumers)
            if not is_there or time.monotonic() > deadline:
                self.fail("\n".join(["not so: " + what, *(consumer.story() for consumer in self.consumers)]))
            time.sleep(0.05)

    def check(self, *consumers):
        for consumer in consumers:
            self.assertEqual(consumer.wrong, [])

    @once_more_on_a_slow_machine
    def test_those_who_divide_get_each_message_once_whoever_leaves_or_dies(self, attempt):
        topic, group = "divided" + attempt, "dividers" + attempt
        expected = set()

        def more(count):
            found = self.send(topic, count)
            expected.update(found[0] | found[1])

        def given():
            return [body for consumer in self.consumers for body in consumer.bodies]

        more(30)
        first = self.start(group, topic, "tag0 || tag1", "CLUSTERING", "first")
        self.wait_for("a new group gets all of a new topic", lambda: set(given()) == expected)
        second = self.start(group, topic, "tag0 || tag1", "CLUSTERING", "second")
        self.wait_for("the second takes part", lambda: more(6) or second.bodies)
        self.wait_for("all arrive", lambda: set(given()) == expected)

        def comes_once():
            """Whether more messages come once each, and to both."""
            before = set(expected)
            more(60)
            self.wait_for("all arrive", lambda: set(given()) == expected)
            return all(given().count(body) == 1 for body in expected - before) and \
                all((expected - before) & set(consumer.bodies) for consumer in (first, second))

        # A queue that changes hands is read from where its group has committed: what came before may come again.
        self.wait_for("each comes once, while nobody comes or goes", comes_once)
        first.end(signal.SIGTERM)
        self.assertEqual(first.process.returncode, 0)
        more(30)
        self.wait_for("who is left has all of it", lambda: set(given()) == expected)
        third = self.start(group, topic, "tag0 || tag1", "CLUSTERING", "third")
        self.wait_for("the third takes part", lambda: more(6) or third.bodies)
        third.end(signal.SIGKILL)
        more(30)
        self.wait_for("who is left takes over", lambda: set(given()) == expected)
        self.check(first, second, third)
        print("\nworks: push clustering\nworks: filters tags", flush=True)

    @once_more_on_a_slow_machine
    def test_messages_of_each_key_come_in_their_order_whoever_leaves(self, attempt):
        topic, group = "ordered" + attempt, "clerks" + attempt

        def more(count):
            for _ in range(count):
                number = Consumers.sent
                Consumers.sent += 1
                made = message(topic, "ordered-%d" % number, number)
                # A key for each queue that there may be.
                self.producer.send_orderly(made, number % 16)
                expected.append("ordered-%d" % number)
            return True

        def given():
            return set(body for consumer in self.consumers for body in consumer.bodies)

        expected = []
        more(16)
        first = self.start(group, topic, "*", "IN_ORDER", "first")
        self.wait_for("the first has all", lambda: given() == set(expected))
        second = self.start(group, topic, "*", "IN_ORDER", "second")
        self.wait_for("the second takes part", lambda: more(16) and second.bodies)
        self.wait_for("all arrive", lambda: given() == set(expected))
        first.end(signal.SIGTERM)
        more(16)
        self.wait_for("who is left has all of it", lambda: given() == set(expected))
        for consumer in (first, second):
            # What comes again comes again in its order.
            of_key = {}
            for body in dict.fromkeys(consumer.bodies):
                number = int(body.split("-")[1])
                self.assertLess(of_key.get(number % 16, -1), number, consumer.bodies)
                of_key[number % 16] = number
        self.check(first, second)
        print("\nworks: order", flush=True)

    @once_more_on_a_slow_machine
    def test_those_that_broadcast_get_every_message(self, attempt):
        topic = "broadcast" + attempt
        self.send(topic, 1)
        both = [self.start("listeners" + attempt, topic, "*", "BROADCASTING", instance) for instance in ("first", "second")]
        for consumer in both:
            self.wait_for("it begins", lambda of=consumer: self.send(topic, 3) and of.bodies)
        found = self.send(topic, 30)
        expected = found[0] | found[1] | found[2]
        for consumer in both:
            self.wait_for("all arrive", lambda of=consumer: expected <= set(of.bodies))
            self.assertEqual(len(consumer.bodies), len(set(consumer.bodies)), "each once")
        self.check(*both)
        print("\nworks: push broadcasting", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 7:
        consume(*sys.argv[1:])
    else:
        unittest.main(verbosity=2)
