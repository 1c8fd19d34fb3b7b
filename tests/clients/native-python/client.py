"""A client of turbopump's native protocol, written from docs/native-protocol.md alone.

It shows that the document is enough; it is no library. Everything here is in the standard library of Python 3.
"""

import socket
import ssl
import struct
import time

PREFACE = b"\xf5TPN" + struct.pack("<HH", 1, 1)
BATCH_MAGIC = 0x50425054

# Kinds of the unions, in the schema's order from 1 on.
PRODUCE, FETCH, FIND_OFFSET, CREATE_TOPIC = 1, 2, 3, 4
ROUTE, COMMIT_OFFSET, COMMITTED_OFFSET, JOIN_GROUP, LEAVE_GROUP = 9, 10, 11, 12, 13
PRODUCED, FETCHED, OFFSET_FOUND, TOPIC_INFO = 1, 2, 3, 4
ROUTE_INFO, OFFSET_INFO, ASSIGNMENT, DONE = 6, 7, 8, 12

TOPIC_EXISTS, MEMBER_UNKNOWN, OFFSET_OUT_OF_RANGE = 17, 20, 21


def _crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


# ---- FlatBuffers, as much as is needed -------------------------------------------------------------------------------

class Table:
    """A table to be written: fields by their number in the schema.

    A value is ("u8" | "u16" | "u32" | "u64", number), a str, a Table, or a list of str. A union is two fields.
    """

    def __init__(self, fields):
        self.fields = fields

    def write(self, out):
        """Appends the vtable, the table, and what it refers to; returns the table's place."""
        widths = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
        count = max(self.fields, default=-1) + 1
        width = {number: widths[value[0]] if isinstance(value, tuple) else 4 for number, value in self.fields.items()}
        # The largest first, so that nothing is between them but what the first field's alignment asks for.
        place, places = 4, {}
        for number in sorted(self.fields, key=lambda number: -width[number]):
            place += -place % width[number]
            places[number] = place
            place += width[number]
        # The table has to be a multiple of 8 from the buffer's start, so that its u64 fields are.
        vtable_bytes = 4 + 2 * count
        out.extend(bytes(-(len(out) + vtable_bytes) % 8))
        vtable = len(out)
        out += struct.pack("<HH", vtable_bytes, place)
        out += b"".join(struct.pack("<H", places.get(number, 0)) for number in range(count))
        table = len(out)
        out += struct.pack("<i", table - vtable) + bytes(place - 4)
        for number, value in self.fields.items():
            at = table + places[number]
            if isinstance(value, tuple):
                out[at:at + width[number]] = value[1].to_bytes(width[number], "little")
            else:
                _refer(out, at, _write(out, value))
        return table


def _refer(out, at, target):
    out[at:at + 4] = struct.pack("<I", target - at)


def _write(out, value):
    if isinstance(value, Table):
        return value.write(out)
    out.extend(bytes(-len(out) % 4))
    place = len(out)
    if isinstance(value, str):
        text = value.encode()
        out += struct.pack("<I", len(text)) + text + b"\0"
        return place
    out += struct.pack("<I", len(value)) + bytes(4 * len(value))
    for index, element in enumerate(value):
        _refer(out, place + 4 + 4 * index, _write(out, element))
    return place


def buffer_of(table):
    out = bytearray(4)
    _refer(out, 0, table.write(out))
    return bytes(out)


class View:
    """A table that was received."""

    def __init__(self, data, place):
        self.data, self.place = data, place
        self.vtable = place - struct.unpack_from("<i", data, place)[0]
        self.vtable_bytes = struct.unpack_from("<H", data, self.vtable)[0]

    @classmethod
    def root(cls, data):
        return cls(data, struct.unpack_from("<I", data)[0])

    def _at(self, number):
        entry = 4 + 2 * number
        distance = struct.unpack_from("<H", self.data, self.vtable + entry)[0] if entry < self.vtable_bytes else 0
        return self.place + distance if distance else None

    def number(self, field, kind, default=0):
        at = self._at(field)
        return default if at is None else struct.unpack_from("<" + kind, self.data, at)[0]

    def _target(self, field):
        at = self._at(field)
        return None if at is None else at + struct.unpack_from("<I", self.data, at)[0]

    def table(self, field):
        target = self._target(field)
        return None if target is None else View(self.data, target)

    def text(self, field):
        target = self._target(field)
        if target is None:
            return None
        length = struct.unpack_from("<I", self.data, target)[0]
        return self.data[target + 4:target + 4 + length].decode()

    def tables(self, field):
        target = self._target(field)
        count = 0 if target is None else struct.unpack_from("<I", self.data, target)[0]
        places = [target + 4 + 4 * index for index in range(count)]
        return [View(self.data, at + struct.unpack_from("<I", self.data, at)[0]) for at in places]

    def structs(self, field, form):
        target = self._target(field)
        count = 0 if target is None else struct.unpack_from("<I", self.data, target)[0]
        size = struct.calcsize("<" + form)
        return [struct.unpack_from("<" + form, self.data, target + 4 + size * index) for index in range(count)]


# ---- Batches -----------------------------------------------------------------------------------------------------------

def batch_of(messages):
    """A batch of messages, each a dict with `body` and perhaps `key`, `tag`, `properties` (a dict)."""
    records = bytearray()
    for message in messages:
        key, tag, body = (message.get(part, "").encode() for part in ("key", "tag", "body"))
        properties = b"".join(
            name.encode() + b"\x01" + value.encode() + b"\x02" for name, value in message.get("properties", {}).items())
        tag_hash = (crc32c(tag) or 1) if tag else 0
        parts = key + tag + properties + body
        records += struct.pack("<IIIiHHHH", 24 + len(parts), len(body), tag_hash, 0, len(key), len(tag), len(properties), 0)
        records += parts
    checked = struct.pack("<IQ", len(messages), int(time.time() * 1000)) + records
    head = bytearray(88)
    struct.pack_into("<IBBHI", head, 0, BATCH_MAGIC, 1, 0, 0, 88 + len(records))
    struct.pack_into("<I", head, 72, crc32c(checked))
    return bytes(head[:76]) + checked


def messages_of(payload, offset):
    """The messages of a fetch's payload from `offset` on."""
    at, found = 0, []
    while at < len(payload):
        magic, version, kind, _, batch_bytes = struct.unpack_from("<IBBHI", payload, at)
        assert (magic, version, kind) == (BATCH_MAGIC, 1, 0), "no batch of messages"
        batch = payload[at:at + batch_bytes]
        assert crc32c(batch[:12] + batch[16:88]) == struct.unpack_from("<I", batch, 12)[0], "a damaged header"
        assert crc32c(batch[76:]) == struct.unpack_from("<I", batch, 72)[0], "damaged records"
        base, count = struct.unpack_from("<Q", batch, 40)[0], struct.unpack_from("<I", batch, 76)[0]
        place = 88
        for index in range(count):
            size, body, _, _, key, tag, properties, attributes = struct.unpack_from("<IIIiHHHH", batch, place)
            assert attributes & 7 == 0, "this client knows no compressed bodies"
            cuts = [place + 24]
            for length in (key, tag, properties):
                cuts.append(cuts[-1] + length)
            key, tag, properties = (batch[cuts[part]:cuts[part + 1]].decode() for part in range(3))
            # There may be an origin block before it.
            body = batch[place + size - body:place + size].decode()
            pairs = [entry.split("\x01") for entry in properties.split("\x02") if entry]
            if base + index >= offset:
                found.append({"offset": base + index, "key": key, "tag": tag, "properties": dict(pairs), "body": body})
            place += size
        assert place == batch_bytes, "records do not fill their batch"
        at += batch_bytes + -batch_bytes % 8
    return found


# ---- The connection ----------------------------------------------------------------------------------------------------

class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class Connection:
    """One connection, with as many requests under way as the caller likes."""

    def __init__(self, address, authority=None):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if authority:
            context = ssl.create_default_context(cafile=authority)
            context.set_alpn_protocols(["turbopump"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host.strip("[]"))
        self.correlation, self.answers = 0, {}
        self.socket.sendall(PREFACE)
        greeting = self._read(8)
        version, has_identity = struct.unpack_from("<HH", greeting, 4)
        assert greeting[:4] == PREFACE[:4] and version == 1, f"the broker speaks version {version}"
        self.node, self.shard = None, None
        if has_identity:
            high, low, self.shard = struct.unpack_from("<QQH", self._read(24))
            self.node = high << 64 | low

    def _read(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the broker has ended the connection")
            data += piece
        return bytes(data)

    def send(self, kind, fields, payload=b""):
        """Sends a request; `wait` takes what this returns."""
        self.correlation += 1
        envelope = buffer_of(Table({0: ("u8", kind), 1: Table(fields)}))
        padded = envelope + bytes(-len(envelope) % 8)
        head = struct.pack("<IIQ", 16 + len(padded) + len(payload), len(envelope), self.correlation)
        self.socket.sendall(head + padded + payload)
        return self.correlation

    def wait(self, correlation, kind):
        """The body and the payload of an answer; answers to others are kept meanwhile."""
        while correlation not in self.answers:
            frame_bytes, envelope_bytes, found = struct.unpack("<IIQ", self._read(16))
            rest = self._read(frame_bytes - 16)
            reply = View.root(rest[:envelope_bytes])
            if found == 0:
                raise Refused(reply.number(0, "H"), reply.text(1))
            self.answers[found] = (reply, rest[envelope_bytes + -envelope_bytes % 8:])
        reply, payload = self.answers.pop(correlation)
        status = reply.number(0, "H")
        if status:
            raise Refused(status, reply.text(1))
        assert reply.number(2, "B") == kind, f"an answer of kind {reply.number(2, 'B')} instead of {kind}"
        return reply.table(3), payload

    def call(self, kind, fields, answer, payload=b""):
        return self.wait(self.send(kind, fields, payload), answer)

    def create_topic(self, topic, queues):
        return self.call(CREATE_TOPIC, {0: topic, 1: ("u32", queues)}, TOPIC_INFO)[0].number(1, "I")

    def route(self, topic):
        """Addresses of the shards, the node that is to answer there, the topic's id and its number of queues."""
        body, _ = self.call(ROUTE, {0: topic}, ROUTE_INFO)
        addresses = {shard.number(0, "I"): shard.text(1) for shard in body.tables(0)}
        info, node = body.table(1), body._at(2)
        high, low = struct.unpack_from("<QQ", body.data, node)
        return addresses, high << 64 | low, info.number(1, "I"), info.number(2, "I")

    def send_batch(self, topic_id, queue, messages, level=0):
        return self.send(PRODUCE, {0: ("u32", topic_id), 1: ("u32", queue), 2: ("u8", level)}, batch_of(messages))

    def base_offset(self, correlation):
        return self.wait(correlation, PRODUCED)[0].number(0, "Q")

    def fetch(self, topic_id, queue, offset, wait_ms=0, session=0):
        fields = {0: ("u32", topic_id), 1: ("u32", queue), 2: ("u64", offset), 5: ("u32", wait_ms), 6: ("u64", session)}
        body, payload = self.call(FETCH, fields, FETCHED)
        return messages_of(payload, offset), body.number(0, "Q")

    def commit(self, group, topic_id, queue, offset, member=None, generation=0):
        fields = {0: group, 1: ("u32", topic_id), 2: ("u32", queue), 3: ("u64", offset)}
        if member:
            fields.update({4: member, 5: ("u64", generation)})
        self.call(COMMIT_OFFSET, fields, DONE)

    def committed(self, group, topic_id, queue):
        """The next offset that the group reads; `None` without a commit."""
        fields = {0: group, 1: ("u32", topic_id), 2: ("u32", queue)}
        body, _ = self.call(COMMITTED_OFFSET, fields, OFFSET_INFO)
        return body.number(0, "Q") if body.number(1, "?", False) else None

    def join(self, group, member, topics, generation=0):
        """The assignment's generation, queues as (topic id, queue), whether it is settled, and the session."""
        fields = {0: group, 1: member, 2: topics, 3: ("u32", 10_000), 4: ("u64", generation), 5: ("u8", 1)}
        body, _ = self.call(JOIN_GROUP, fields, ASSIGNMENT)
        return body.number(0, "Q"), body.structs(1, "II"), bool(body.number(2, "B")), body.number(3, "Q")

    def leave(self, group, member):
        self.call(LEAVE_GROUP, {0: group, 1: member}, DONE)

    def close(self):
        self.socket.close()
