'use strict';
// The HTTP SDK @aliyunmq/mq-http-sdk, unmodified, against the real broker.

const assert = require('node:assert/strict');
const { createHash } = require('node:crypto');
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { afterEach, beforeEach, describe, it } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');

const { MessageProperties } = require('@aliyunmq/mq-http-sdk');

const { Broker, SHARDS, TLS } = require('./broker.js');

let broker, client, producer, consumer;

beforeEach(async () => {
  broker = await Broker.start(
    '--transaction-immunity', '1s', '--transaction-check-interval', '1s', '--deliveries', '2');
  broker.topic('t');
  client = broker.client();
  producer = client.getProducer('', 't');
  consumer = client.getConsumer('', 't', 'g');
});

afterEach(() => broker.stop());

const failure = (code) => (error) => {
  assert.equal(error.Code, code, error.stack);
  assert.match(error.RequestId, /^[0-9A-F]{24}$/);
  return true;
};

const handles = (messages) => messages.map((message) => message.ReceiptHandle);
const bodies = (messages) => messages.map((message) => message.MessageBody);

async function acknowledge(messages, from = consumer) {
  const { code, body } = await from.ackMessage(handles(messages));
  assert.deepEqual([code, body], [204, undefined]);
}

/** Receives until `count` messages are there. */
async function drain(count, { from = consumer, ordered = false, keep = false } = {}) {
  const messages = [];
  while (messages.length < count) {
    const { code, body } = await (ordered ? from.consumeMessageOrderly(16, 20) : from.consumeMessage(16, 20));
    assert.equal(code, 200);
    messages.push(...body);
    if (!keep) {
      await acknowledge(body, from);
    }
  }
  assert.equal(messages.length, count);
  return messages;
}

describe(`the SDK on ${SHARDS} shard(s)`, () => {
  it('brings contents across', async () => {
    const sent = new Map();
    // The client wraps bodies in CDATA, so what ends a section cannot be among them.
    for (const [index, text] of ['plain', '<&"\'>\r\n\t ]]', '\u00e4\u4e2d\u{1f600}', 'x'.repeat(100_000)].entries()) {
      const properties = new MessageProperties();
      properties.messageKey(`key${index}`);
      properties.putProperty('name', `value ${index}`);
      const { code, requestId, body } = await producer.publishMessage(text, `tag${index}`, properties);
      assert.equal(code, 201);
      assert.match(requestId, /^[0-9A-F]{24}$/);
      assert.match(body.MessageId, /^[0-9A-F]{32}$/);
      assert.equal(body.MessageBodyMD5, createHash('md5').update(text).digest('hex').toUpperCase());
      sent.set(body.MessageId, { text, index, md5: body.MessageBodyMD5 });
    }
    for (const message of await drain(sent.size)) {
      const { text, index, md5 } = sent.get(message.MessageId);
      sent.delete(message.MessageId);
      assert.equal(message.MessageBody, text);
      assert.equal(message.MessageBodyMD5, md5);
      assert.equal(message.MessageTag, `tag${index}`);
      assert.equal(message.MessageKey, `key${index}`);
      assert.equal(message.Properties.name, `value ${index}`);
      assert.equal(message.ConsumedTimes, '1');
      assert.ok(Math.abs(Date.now() - Number(message.PublishTime)) < 60_000, message.PublishTime);
      assert.equal(Number(message.NextConsumeTime) - Number(message.FirstConsumeTime), 2_000);
    }
    assert.equal(sent.size, 0);
    console.log('works: send');
    console.log('works: pull');
  });

  it('waits as long as asked, and ends the wait when a message arrives', async () => {
    const begun = Date.now();
    await assert.rejects(consumer.consumeMessage(3, 1), failure('MessageNotExist'));
    assert.ok(Date.now() - begun >= 900, `${Date.now() - begun} ms`);
    const took = [];
    for (let round = 0; round < 5; round += 1) {
      const waiting = consumer.consumeMessage(3, 10);
      await sleep(300);
      const sent = Date.now();
      await producer.publishMessage('news', '');
      const { body } = await waiting;
      took.push(Date.now() - sent);
      assert.deepEqual(bodies(body), ['news']);
      await acknowledge(body);
    }
    // A wait that looks now and then would take longer.
    assert.ok(Math.min(...took) < 300, `${took} ms`);
  });

  it('counts redeliveries, reports handles one by one, and ends in the dead letters', async () => {
    await producer.publishMessage('poison', '');
    const [first] = await drain(1, { keep: true });
    const [again] = await drain(1, { keep: true });
    assert.deepEqual([first.ConsumedTimes, again.ConsumedTimes], ['1', '2']);
    assert.equal(again.MessageId, first.MessageId);
    assert.equal(again.FirstConsumeTime, first.FirstConsumeTime);
    assert.notEqual(again.ReceiptHandle, first.ReceiptHandle);
    assert.ok(Date.now() >= Number(first.NextConsumeTime));
    await producer.publishMessage('good', '');
    const [good] = await drain(1, { keep: true });
    assert.equal(good.MessageBody, 'good');
    const { code, body } = await consumer.ackMessage([first.ReceiptHandle, good.ReceiptHandle, 'forged']);
    assert.equal(code, 404);
    const codes = Object.fromEntries(body.map((entry) => [entry.ReceiptHandle, entry.ErrorCode]));
    assert.deepEqual(codes, { [first.ReceiptHandle]: 'MessageNotExist', forged: 'ReceiptHandleError' });
    // What was acknowledged is gone; what was not went to the dead letters.
    await assert.rejects(consumer.consumeMessage(16, 4), failure('MessageNotExist'));
    const { body: dead } = await client.getConsumer('', '%DLQ%g', 'watch').consumeMessage(1, 5);
    assert.deepEqual(bodies(dead), ['poison']);
    console.log('works: retry');
  });

  it('filters tags', async () => {
    for (const tag of ['a', 'b', 'c', 'a']) {
      await producer.publishMessage(tag, tag);
    }
    const tagged = client.getConsumer('', 't', 'tagged', 'a||b');
    assert.deepEqual(bodies(await drain(3, { from: tagged })).sort(), ['a', 'a', 'b']);
    await assert.rejects(tagged.consumeMessage(16, 1), failure('MessageNotExist'));
    console.log('works: filters tags');
  });

  it('keeps the order of each sharding key when a consumer dies', async () => {
    for (let number = 0; number < 12; number += 1) {
      const properties = new MessageProperties();
      properties.shardingKey(`key${number % 3}`);
      await producer.publishMessage(`${number % 3}:${number}`, '', properties);
    }
    const lost = await consumer.consumeMessageOrderly(3, 5);
    assert.ok(lost.body.length > 0);
    const seen = {};
    for (const message of await drain(12, { ordered: true })) {
      const [key, number] = message.MessageBody.split(':');
      assert.equal(message.ShardingKey, `key${key}`);
      (seen[key] ??= []).push(Number(number));
    }
    assert.deepEqual(seen, { 0: [0, 3, 6, 9], 1: [1, 4, 7, 10], 2: [2, 5, 8, 11] });
    console.log('works: order');
  });

  it('delays', async () => {
    const properties = new MessageProperties();
    const due = Date.now() + 1500;
    properties.startDeliverTime(due);
    await producer.publishMessage('delayed', '', properties);
    await assert.rejects(consumer.consumeMessage(1), failure('MessageNotExist'));
    const [message] = await drain(1);
    assert.ok(Date.now() >= due);
    assert.deepEqual([message.MessageBody, message.StartDeliverTime], ['delayed', due]);
    console.log('works: delay');
  });

  it('commits, rolls back and hands back transactions', async () => {
    const transactions = client.getTransProducer('', 't', 'producers');
    const publish = async (body) => {
      const properties = new MessageProperties();
      properties.transCheckImmunityTime(1);
      const answer = await transactions.publishMessage(body, '', properties);
      return answer.body.ReceiptHandle;
    };
    const committed = await publish('commit');
    const rolledBack = await publish('roll back');
    await publish('undecided');
    assert.equal((await transactions.commit(committed)).code, 204);
    assert.equal((await transactions.rollback(rolledBack)).code, 204);
    assert.deepEqual(bodies(await drain(1)), ['commit']);
    const { body: halves } = await transactions.consumeHalfMessage(3, 5);
    assert.deepEqual([bodies(halves), halves[0].ConsumedTimes], [['undecided'], '1']);
    assert.equal((await transactions.commit(halves[0].ReceiptHandle)).code, 204);
    assert.deepEqual(bodies(await drain(1)), ['undecided']);
    const { code, body } = await transactions.commit(halves[0].ReceiptHandle);
    assert.deepEqual([code, body.map((entry) => entry.ErrorCode)], [404, ['MessageNotExist']]);
    await assert.rejects(consumer.consumeMessage(1, 1), failure('MessageNotExist'));
    console.log('works: transactions');
  });

  it('keeps instances apart', async () => {
    const elsewhere = client.getProducer('instance', 't');
    await assert.rejects(elsewhere.publishMessage('x', ''), failure('TopicNotExist'));
    broker.instance('instance');
    broker.topic('instance%t');
    await elsewhere.publishMessage('theirs', '');
    await producer.publishMessage('ours', '');
    const theirs = client.getConsumer('instance', 't', 'g');
    assert.deepEqual(bodies(await drain(1, { from: theirs })), ['theirs']);
    assert.deepEqual(bodies(await drain(1)), ['ours']);
  });

  it('says what is wrong', async () => {
    await assert.rejects(client.getProducer('', 'nothing').publishMessage('x', ''), failure('TopicNotExist'));
    await assert.rejects(consumer.consumeMessage(17, 1), failure('InvalidArgument'));
    await assert.rejects(consumer.consumeMessage(1, 31), failure('InvalidArgument'));
    await assert.rejects(producer.publishMessage('a ]]> b', ''), failure('MalformedXML'));
  });

  it('goes on after the broker was killed, and after it was stopped', async () => {
    for (let number = 0; number < 40; number += 1) {
      await producer.publishMessage(`m${number}`, '');
    }
    const done = [];
    for (const signal of ['SIGKILL', 'SIGTERM']) {
      const { body } = await consumer.consumeMessage(8, 5);
      await acknowledge(body.slice(0, 4));
      done.push(...body.slice(0, 4));
      await broker.end(signal);
      await broker.start();
    }
    const rest = await drain(40 - done.length);
    const numbers = bodies([...done, ...rest]).map((body) => Number(body.slice(1)));
    assert.deepEqual(numbers.sort((one, other) => one - other), Array.from({ length: 40 }, (_, index) => index));
    console.log('works: kills');
  });
});

describe('connections', () => {
  it('that ended while idle are opened again', async () => {
    await broker.end('SIGTERM');
    broker.flags.push('--http-idle-timeout', '1s');
    broker.lease = '1m';
    await broker.start();
    for (let round = 0; round < 3; round += 1) {
      await Promise.all(Array.from({ length: 8 }, (_, index) => producer.publishMessage(`${round}/${index}`, '')));
      await drain(8);
      await sleep(2_500);
    }
  });

  it('go through TLS', async () => {
    await broker.end('SIGTERM');
    broker.flags.push(...TLS);
    // A busy machine takes its time for as much.
    broker.lease = '1m';
    await broker.start();
    await assert.rejects(producer.publishMessage('in the clear', ''), failure('InvalidArgument'));
    const secure = broker.secureClient();
    const body = 'x'.repeat(1_000_000);
    const sending = Array.from({ length: 8 }, () => secure.getProducer('', 't').publishMessage(body, 'tag'));
    for (const { code } of await Promise.all(sending)) {
      assert.equal(code, 201);
    }
    const messages = await drain(8, { from: secure.getConsumer('', 't', 'g', 'tag') });
    assert.ok(messages.every((message) => message.MessageBody === body));
    await assert.rejects(secure.getConsumer('', 't', 'g').consumeMessage(1, 1), failure('MessageNotExist'));
    console.log('works: TLS');
  });
});

describe('keys', () => {
  it('are checked, with the rules they have and the clock they sign with', async () => {
    const path = join(broker.directory, 'keys.toml');
    writeFileSync(path, '[[keys]]\nid = "key"\nsecret = "secret"\npublish = ["t"]\n', { mode: 0o600 });
    await broker.end('SIGTERM');
    broker.flags.push('--access-keys', path);
    await broker.start();
    assert.equal((await producer.publishMessage('x', '')).code, 201);
    await assert.rejects(consumer.consumeMessage(1, 1), failure('AccessDenied'));
    for (const [key, secret] of [['key', 'wrong'], ['nobody', 'secret']]) {
      const stranger = broker.client(key, secret).getProducer('', 't');
      await assert.rejects(stranger.publishMessage('x', ''), failure('AccessDenied'));
    }
    const real = Date;
    const offset = { minutes: 0 };
    globalThis.Date = class extends real {
      constructor(...given) {
        super(...(given.length ? given : [real.now() + offset.minutes * 60_000]));
      }
    };
    try {
      for (const minutes of [-20, 20]) {
        offset.minutes = minutes;
        await assert.rejects(producer.publishMessage('x', ''), failure('AccessDenied'));
      }
      offset.minutes = 10;
      assert.equal((await producer.publishMessage('x', '')).code, 201);
    } finally {
      globalThis.Date = real;
    }
    console.log('works: keys');
  });
});
