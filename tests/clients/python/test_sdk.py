"""The HTTP SDK mq_http_sdk, unmodified, against the real broker. Environment: TURBOPUMP (the binary), SHARDS."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from unittest import mock
from urllib.parse import quote

from mq_http_sdk.mq_client import MQClient
from mq_http_sdk.mq_consumer import MQConsumer
from mq_http_sdk.mq_exception import MQExceptionBase
from mq_http_sdk.mq_producer import TopicMessage

BINARY = os.environ["TURBOPUMP"]
SHARDS = os.environ.get("SHARDS", "1")


class Broker:
    """A broker on free ports over a directory of its own."""

    def __init__(self, *flags):
        self.directory = tempfile.TemporaryDirectory()
        self.flags = flags
        self.start()

    def start(self):
        command = [BINARY, "serve", "--data", self.directory.name + "/data", "--listen", "127.0.0.1:0",
                   "--http", "127.0.0.1:0", "--namesrv", "none", "--shards", SHARDS, "--lease", "2s", "--ordered-lease", "2s",
                   *self.flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.addresses = []
        for line in self.process.stdout:
            self.addresses += re.findall(r"127\.0\.0\.1:\d+", line) if "http" in line.lower() else []
            native = re.search(r"shard 0\b.*?(127\.0\.0\.1:\d+)", line)
            if native:
                self.native = native.group(1)
            if line.strip() == "ready":
                break
        self.client = MQClient("http://" + self.addresses[0], "key", "secret")

    def command(self, *arguments):
        subprocess.run([BINARY, *arguments, "--server", self.native], check=True, stdout=subprocess.DEVNULL)

    def topic(self, name):
        self.command("topic", "create", name)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()
        self.directory.cleanup()


def failure(call, *arguments):
    """The error that a call ends in."""
    try:
        call(*arguments)
    except MQExceptionBase as error:
        return error
    raise AssertionError("the call succeeded")


class Sdk(unittest.TestCase):
    def setUp(self):
        self.broker = Broker("--transaction-immunity", "1s", "--transaction-check-interval", "1s", "--deliveries", "2")
        self.broker.topic("t")
        self.producer = self.broker.client.get_producer("", "t")
        self.consumer = self.broker.client.get_consumer("", "t", "g")

    def tearDown(self):
        self.broker.stop()

    def drain(self, count, ack=True, consume=MQConsumer.consume_message):
        messages = []
        while len(messages) < count:
            found = consume(self.consumer, 16, 20)
            messages += found
            if ack:
                self.consumer.ack_message([message.receipt_handle for message in found])
        return messages

    def test_contents_arrive(self):
        sent = {}
        for number, body in enumerate(["plain", "<&\"'>\r\n\t ]]>", "\u00e4\u4e2d\U0001f600", "x" * 100_000]):
            message = TopicMessage(body, "tag%d" % number)
            message.put_property("name", "value%d" % number)
            message.set_message_key("key%d" % number)
            answer = self.producer.publish_message(message)
            self.assertRegex(answer.message_id, "^[0-9A-F]{32}$")
            self.assertRegex(answer.message_body_md5, "^[0-9A-F]{32}$")
            sent[answer.message_id] = (body, number, answer.message_body_md5)
        for message in self.drain(len(sent)):
            body, number, md5 = sent.pop(message.message_id)
            self.assertEqual((message.message_body, message.message_body_md5), (body, md5))
            self.assertEqual((message.message_tag, message.consumed_times), ("tag%d" % number, 1))
            self.assertEqual(message.get_property("name"), "value%d" % number)
            self.assertEqual(message.get_message_key(), "key%d" % number)
        self.assertEqual(sent, {})
        begun = time.time()
        self.assertEqual(failure(self.consumer.consume_message, 3, 1).type, "MessageNotExist")
        self.assertGreaterEqual(time.time() - begun, 0.9)
        print("\nworks: send", flush=True)
        print("\nworks: pull", flush=True)

    def test_an_arriving_message_ends_the_wait(self):
        best = 10
        for _ in range(5):
            sent = []

            def later():
                time.sleep(0.3)
                sent.append(time.time())
                self.broker.client.__class__("http://" + self.broker.addresses[0], "key", "secret") \
                    .get_producer("", "t").publish_message(TopicMessage("news", ""))

            thread = threading.Thread(target=later)
            thread.start()
            message, = self.consumer.consume_message(3, 10)
            best = min(best, time.time() - sent[0])
            thread.join()
            self.consumer.ack_message([message.receipt_handle])
        # A wait that looks now and then would take longer.
        self.assertLess(best, 0.3)

    def test_redelivery_counts_then_dead_letters(self):
        self.producer.publish_message(TopicMessage("poison", ""))
        first, = self.drain(1, ack=False)
        again, = self.drain(1, ack=False)
        self.assertEqual((first.consumed_times, again.consumed_times), (1, 2))
        self.assertEqual(first.first_consume_time, again.first_consume_time)
        self.assertNotEqual(first.receipt_handle, again.receipt_handle)
        self.assertGreaterEqual(time.time() * 1000, first.next_consume_time)
        error = failure(self.consumer.ack_message, [first.receipt_handle, "forged"])
        codes = {entry["ReceiptHandle"]: entry["ErrorCode"] for entry in error.sub_errors}
        self.assertEqual(codes, {first.receipt_handle: "MessageNotExist", "forged": "ReceiptHandleError"})
        self.assertEqual(failure(self.consumer.consume_message, 1, 4).type, "MessageNotExist")
        dead = self.broker.client.get_consumer("", "%DLQ%g", "watch").consume_message(1, 5)
        self.assertEqual([message.message_body for message in dead], ["poison"])
        print("\nworks: retry", flush=True)

    def test_tags_are_filtered(self):
        for tag in ["a", "b", "c", "a"]:
            self.producer.publish_message(TopicMessage(tag, tag))
        consumer = self.broker.client.get_consumer("", "t", "tagged", "a||b")
        bodies = []
        while len(bodies) < 3:
            found = consumer.consume_message(16, 20)
            consumer.ack_message([message.receipt_handle for message in found])
            bodies += [message.message_body for message in found]
        self.assertEqual(sorted(bodies), ["a", "a", "b"])
        self.assertEqual(failure(consumer.consume_message, 16, 1).type, "MessageNotExist")
        print("\nworks: filters tags", flush=True)

    def test_order_is_kept_when_a_consumer_dies(self):
        for number in range(12):
            message = TopicMessage("%d:%d" % (number % 3, number), "")
            message.set_sharding_key("key%d" % (number % 3))
            self.producer.publish_message(message)
        lost = self.consumer.consume_message_orderly(3, 5)
        self.assertTrue(lost)
        seen = {}
        for message in self.drain(12, consume=MQConsumer.consume_message_orderly):
            key, number = message.message_body.split(":")
            seen.setdefault(key, []).append(int(number))
        self.assertEqual(seen, {str(key): list(range(key, 12, 3)) for key in range(3)})
        print("\nworks: order", flush=True)

    def test_a_consumer_in_order_that_dies_leaves_the_same_messages_first(self):
        for number in range(6):
            message = TopicMessage(str(number), "")
            message.set_sharding_key("key")
            self.producer.publish_message(message)

        def take(count):
            return [(message.message_body, message.consumed_times, message.receipt_handle)
                    for message in self.consumer.consume_message_orderly(count, 5)]

        lost = take(3)
        self.assertEqual([(body, times) for body, times, _ in lost], [("0", 1), ("1", 1), ("2", 1)])
        self.assertEqual(failure(self.consumer.consume_message_orderly, 16).type, "MessageNotExist")
        # Its successor: nothing else of the queue until these are acknowledged.
        again = take(16)
        self.assertEqual([(body, times) for body, times, _ in again], [("0", 2), ("1", 2), ("2", 2)])
        late = failure(self.consumer.ack_message, [handle for _, _, handle in lost])
        self.assertEqual([entry["ErrorCode"] for entry in late.sub_errors], ["MessageNotExist"] * 3)
        self.consumer.ack_message([handle for _, _, handle in again])
        rest = take(16)
        self.assertEqual([(body, times) for body, times, _ in rest], [("3", 1), ("4", 1), ("5", 1)])
        self.consumer.ack_message([handle for _, _, handle in rest])

    def test_every_handle_that_fails_is_named_and_the_others_count(self):
        for number in range(4):
            self.producer.publish_message(TopicMessage(str(number), ""))
        other = self.broker.client.get_consumer("", "t", "other").consume_message(1, 5)[0].receipt_handle
        used, kept, good, last = [message.receipt_handle for message in self.drain(4, ack=False)]
        self.consumer.ack_message([used])
        forged = kept[:20] + ("A" if kept[20] != "A" else "B") + kept[21:]
        error = failure(self.consumer.ack_message, [used, forged, good, other, "short"])
        codes = {entry["ReceiptHandle"]: entry["ErrorCode"] for entry in error.sub_errors}
        self.assertEqual(codes, {used: "MessageNotExist", forged: "ReceiptHandleError", other: "ReceiptHandleError",
                                 "short": "ReceiptHandleError"})
        for entry in error.sub_errors:
            self.assertEqual(set(entry), {"ErrorCode", "ErrorMessage", "ReceiptHandle"})
            self.assertTrue(entry["ErrorMessage"])
        self.consumer.ack_message([kept, last])
        self.assertEqual(failure(self.consumer.consume_message, 16, 3).type, "MessageNotExist")

    def test_a_handle_counts_after_a_restart(self):
        for number in range(2):
            self.producer.publish_message(TopicMessage(str(number), ""))
        done, left = self.drain(2, ack=False)
        self.broker.kill()
        self.broker.start()
        self.consumer = self.broker.client.get_consumer("", "t", "g")
        self.consumer.ack_message([done.receipt_handle])
        again, = self.drain(1, ack=False)
        self.assertEqual((again.message_body, again.consumed_times), (left.message_body, 2))
        error = failure(self.consumer.ack_message, [done.receipt_handle, left.receipt_handle])
        self.assertEqual([entry["ErrorCode"] for entry in error.sub_errors], ["MessageNotExist"] * 2)
        self.consumer.ack_message([again.receipt_handle])
        self.assertEqual(failure(self.consumer.consume_message, 16, 3).type, "MessageNotExist")

    def test_an_expression_picks_messages(self):
        for number in range(6):
            message = TopicMessage("m%d" % number, "even" if number % 2 == 0 else "odd")
            message.put_property("n", str(number))
            self.producer.publish_message(message)
        # It has no word for expressions, but puts what it holds for an escaped tag into what it signs, as it is.
        self.consumer.message_tag = "*&filterSql=" + quote("n > 2 AND TAGS = 'odd'")
        self.assertEqual(sorted(message.message_body for message in self.drain(2)), ["m3", "m5"])
        self.assertEqual(failure(self.consumer.consume_message, 16, 1).type, "MessageNotExist")
        self.consumer.message_tag = "*&filterSql=" + quote("n >")
        error = failure(self.consumer.consume_message, 16, 1)
        self.assertEqual(error.type, "InvalidArgument")
        self.assertIn("at character 4: ", str(error))

    def test_delay_and_transactions(self):
        message = TopicMessage("delayed", "")
        due = int(time.time() * 1000) + 1500
        message.set_start_deliver_time(due)
        self.producer.publish_message(message)
        self.assertEqual(self.drain(1)[0].message_body, "delayed")
        self.assertGreaterEqual(time.time() * 1000, due)
        transactions = self.broker.client.get_trans_producer("", "t", "producers")
        halves = []
        for body in ["commit", "roll back", "undecided"]:
            message = TopicMessage(body, "")
            message.set_trans_check_immunity_time(1)
            halves.append(transactions.publish_message(message))
        transactions.commit(halves[0].receipt_handle)
        transactions.rollback(halves[1].receipt_handle)
        self.assertEqual([message.message_body for message in self.drain(1)], ["commit"])
        half, = transactions.consume_half_message(3, 5)
        self.assertEqual((half.message_body, half.consumed_times), ("undecided", 1))
        transactions.commit(half.receipt_handle)
        self.assertEqual([message.message_body for message in self.drain(1)], ["undecided"])
        self.assertEqual(failure(transactions.commit, half.receipt_handle).type, "MessageNotExist")
        print("\nworks: delay", flush=True)
        print("\nworks: transactions", flush=True)

    def test_a_kill_loses_nothing_and_returns_nothing_acknowledged(self):
        bodies = ["m%d" % number for number in range(40)]
        for body in bodies:
            self.producer.publish_message(TopicMessage(body, ""))
        taken = self.drain(16, ack=False)[:16]
        done = taken[:8]
        self.consumer.ack_message([message.receipt_handle for message in done])
        self.broker.kill()
        self.broker.start()
        self.consumer = self.broker.client.get_consumer("", "t", "g")
        rest = self.drain(32)
        self.assertEqual(sorted(message.message_body for message in done + rest), sorted(bodies))
        print("\nworks: kills", flush=True)

    def test_what_is_wrong_is_said(self):
        unknown = self.broker.client.get_producer("", "nothing")
        self.assertEqual(failure(unknown.publish_message, TopicMessage("x", "")).type, "TopicNotExist")

    def test_instances_keep_names_apart(self):
        elsewhere = self.broker.client.get_producer("MQ_INST_1", "t")
        error = failure(elsewhere.publish_message, TopicMessage("x", ""))
        self.assertEqual(error.type, "TopicNotExist")
        self.assertIn("turbopump instance create MQ_INST_1", str(error))
        self.broker.command("instance", "create", "MQ_INST_1")
        self.assertEqual(failure(elsewhere.publish_message, TopicMessage("x", "")).type, "TopicNotExist")
        self.broker.command("topic", "create", "t", "--instance", "MQ_INST_1")
        elsewhere.publish_message(TopicMessage("theirs", ""))
        self.producer.publish_message(TopicMessage("ours", ""))
        theirs = self.broker.client.get_consumer("MQ_INST_1", "t", "g")
        message, = theirs.consume_message(16, 5)
        self.assertEqual(message.message_body, "theirs")
        self.assertEqual([message.message_body for message in self.drain(1)], ["ours"])
        # Left alone, it is delivered twice and goes to the dead letters of the instance's group.
        again, = theirs.consume_message(16, 5)
        self.assertEqual(again.consumed_times, 2)
        self.assertEqual(failure(theirs.consume_message, 1, 4).type, "MessageNotExist")
        dead, = self.broker.client.get_consumer("MQ_INST_1", "%DLQ%g", "watch").consume_message(1, 5)
        self.assertEqual(dead.message_body, "theirs")


class Keys(unittest.TestCase):
    def test_keys_and_rules_are_checked(self):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('[[keys]]\nid = "key"\nsecret = "secret"\npublish = ["t"]\n')
            file.write('[[keys]]\nid = "root"\nsecret = "toor"\nadmin = true\n')
            file.flush()
            broker = Broker("--access-keys", file.name)
            try:
                broker.command("topic", "create", "t", "--access-key", "root", "--secret-key", "toor")
                broker.client.get_producer("", "t").publish_message(TopicMessage("x", ""))
                consume = broker.client.get_consumer("", "t", "g").consume_message
                self.assertEqual(failure(consume, 1, 1).type, "AccessDenied")
                for identity, secret in [("key", "wrong"), ("nobody", "secret")]:
                    client = MQClient("http://" + broker.addresses[0], identity, secret)
                    publish = client.get_producer("", "t").publish_message
                    self.assertEqual(failure(publish, TopicMessage("x", "")).type, "AccessDenied")
                publish = broker.client.get_producer("", "t").publish_message
                real = time.gmtime
                for seconds, is_denied in [(-1000, True), (1000, True), (-600, False), (600, False)]:
                    with mock.patch("time.gmtime", lambda: real(time.time() + seconds)):
                        if is_denied:
                            error = failure(publish, TopicMessage("x", ""))
                            self.assertEqual(error.type, "AccessDenied")
                            self.assertIn("away from the broker's clock", str(error))
                        else:
                            publish(TopicMessage("x", ""))
            finally:
                broker.stop()
        print("\nworks: keys", flush=True)


if __name__ == "__main__":
    unittest.main(verbosity=2)
