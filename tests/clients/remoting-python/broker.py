"""What the suites of the clients for Python share: a broker, and a message. Both packages are called rocketmq, so that this is of
the one that is installed. Environment: TURBOPUMP (the binary), SHARDS."""

import json
import os
import re
import subprocess
import tempfile

from rocketmq.client import Message

BINARY = os.environ["TURBOPUMP"]
SHARDS = int(os.environ.get("SHARDS", "1"))


class Broker:
    """A broker on free ports over a directory of its own."""

    def __init__(self, *flags):
        self.directory = tempfile.TemporaryDirectory()
        command = [BINARY, "serve", "--data", self.directory.name + "/data", "--listen", "127.0.0.1:0", "--http", "none",
                   "--namesrv", "127.0.0.1:0", "--shards", str(SHARDS), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.native = self.names = None
        for line in self.process.stdout:
            address = re.search(r"127\.0\.0\.1:\d+", line)
            if address and "name server" in line.lower():
                self.names = address.group(0)
            elif address and re.search(r"shard 0\b", line):
                self.native = address.group(0)
            if line.strip() == "ready":
                break

    def messages(self, topic, may_fail=False):
        """All messages of a topic, as the command line shows them; none where that may fail."""
        output = subprocess.run([BINARY, "consume", topic, "-o", "json", "--server", self.native], check=not may_fail,
                                capture_output=True, text=True).stdout
        return [json.loads(line) for line in output.splitlines()]

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()
        self.directory.cleanup()


def message(topic, body, number):
    made = Message(topic)
    made.set_body(body)
    made.set_keys("key%d" % number)
    made.set_tags("tag%d" % (number % 3))
    made.set_property("number", str(number))
    return made
