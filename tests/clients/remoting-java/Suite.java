import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageClientExt;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * RocketMQ's own client for Java, unmodified, against the real broker: what it sends is what `turbopump consume` reads, with
 * the places and ids that it was told, and what it pulls. Environment: TURBOPUMP (the binary), SHARDS.
 */
public class Suite {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final Pattern ADDRESS = Pattern.compile("127\\.0\\.0\\.1:\\d+");

    private final Path directory;
    private final Process broker;
    private String server;
    private String names;
    private final DefaultMQProducer producer;

    public static void main(String[] arguments) throws Exception {
        Suite suite = new Suite();
        try {
            suite.run("synchronous sends arrive with everything they have", suite::synchronousSends);
            suite.run("asynchronous sends are answered each", suite::asynchronousSends);
            suite.run("one-way sends arrive", suite::oneWaySends);
            suite.run("batches are the messages they are made of", suite::batches);
            suite.run("compressed bodies are readable", suite::compressedBodies);
            suite.run("refusals have RocketMQ's codes", suite::refusals);
            suite.run("many threads share a producer", suite::manyThreads);
            System.out.println("works: send");
            suite.run("a pull consumer reads what is stored", suite::pulls);
            System.out.println("works: pull queue by queue");
            suite.run("a lite pull consumer reads what is stored, from where it likes", suite::litePulls);
            System.out.println("works: pull lite");
        } catch (Throwable error) {
            // The client's threads would keep the program alive.
            error.printStackTrace();
            suite.broker.destroyForcibly();
            System.exit(1);
        }
        suite.producer.shutdown();
        suite.broker.destroy();
        check(suite.broker.waitFor(30, TimeUnit.SECONDS), "the broker stops");
        check(suite.broker.exitValue() == 0, "the broker stops without an error");
        System.exit(0);
    }

    private interface Case {
        void run() throws Exception;
    }

    private void run(String name, Case body) throws Exception {
        long begun = System.nanoTime();
        body.run();
        System.out.printf("ok: %s (%d ms)%n", name, (System.nanoTime() - begun) / 1_000_000);
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static void same(Object expected, Object found, String what) {
        check(expected.equals(found), what + ": " + found + " instead of " + expected);
    }

    private Suite() throws Exception {
        directory = Files.createTempDirectory("turbopump");
        broker = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:0", "--http", "none",
            "--namesrv", "127.0.0.1:0", "--shards", String.valueOf(SHARDS), "--segment-bytes", "16MiB")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null && !line.equals("ready"); line = lines.readLine()) {
            Matcher address = ADDRESS.matcher(line);
            if (address.find() && line.contains("name server")) {
                names = address.group();
            } else if (line.contains("shard 0 ")) {
                server = address.group();
            }
        }
        producer = new DefaultMQProducer("producers");
        producer.setNamesrvAddr(names);
        producer.setPollNameServerInterval(1000);
        producer.setMaxMessageSize(16 * 1024 * 1024);
        // What is sent a second time, because a busy machine's answer is late, would be there twice.
        producer.setSendMsgTimeout(60_000);
        producer.start();
    }

    /** A message as the command line shows it. */
    private static final class Stored {
        private final String line;

        private Stored(String line) {
            this.line = line;
        }

        private String text(String name) {
            Matcher found = Pattern.compile("\"" + name + "\":\"?([^\",}]*)").matcher(line);
            return found.find() ? found.group(1) : "";
        }

        private int number(String name) {
            return Integer.parseInt(text(name));
        }
    }

    /** All messages of a topic by their bodies, once there are so many. */
    private Map<String, Stored> stored(String topic, int count) throws Exception {
        long deadline = System.nanoTime() + 60_000_000_000L;
        while (true) {
            Process command = new ProcessBuilder(BINARY, "consume", topic, "-o", "json", "--server", server)
                .redirectError(ProcessBuilder.Redirect.INHERIT).start();
            List<String> lines = new BufferedReader(new InputStreamReader(command.getInputStream(), StandardCharsets.UTF_8))
                .lines().toList();
            int exit = command.waitFor();
            // A one-way send that is under way may still have its topic to make.
            if ((exit != 0 || lines.size() < count) && System.nanoTime() < deadline) {
                Thread.sleep(200);
                continue;
            }
            same(0, exit, "turbopump consume");
            same(count, lines.size(), "messages of " + topic);
            Map<String, Stored> byBody = new HashMap<>();
            lines.forEach(line -> byBody.put(new Stored(line).text("body"), new Stored(line)));
            same(count, byBody.size(), "bodies of " + topic);
            return byBody;
        }
    }

    private static Message message(String topic, String body, int number) {
        Message message = new Message(topic, "tag" + number % 3, "key" + number, body.getBytes(StandardCharsets.UTF_8));
        message.putUserProperty("number", String.valueOf(number));
        return message;
    }

    private static void check(Stored stored, int number) {
        same("key" + number, stored.text("key"), "key");
        same("tag" + number % 3, stored.text("tag"), "tag");
        check(stored.line.contains("\"number\":\"" + number + "\""), "a property: " + stored.line);
        check(!stored.line.contains("WAIT"), "what is carried out is not stored: " + stored.line);
    }

    /** Whether a message is where its producer was told. */
    private static void check(Stored stored, SendResult result) {
        String broker = result.getMessageQueue().getBrokerName();
        int shard = Integer.parseInt(broker.substring(broker.lastIndexOf('-') + 1));
        same(result.getMessageQueue().getQueueId() * SHARDS + shard, stored.number("queue"), "queue");
        same((int) result.getQueueOffset(), stored.number("offset"), "offset");
        same(result.getMsgId(), stored.text("unique_id"), "unique id");
        same(result.getOffsetMsgId(), stored.text("id"), "offset message id");
    }

    private void synchronousSends() throws Exception {
        Map<String, SendResult> results = new HashMap<>();
        for (int number = 0; number < 40; number++) {
            SendResult result = producer.send(message("sync", "sync-" + number + " \u4e2d\u6587", number));
            same(SendStatus.SEND_OK, result.getSendStatus(), "status");
            same("DefaultRegion", result.getRegionId(), "region");
            results.put("sync-" + number + " \u4e2d\u6587", result);
        }
        Map<String, Stored> stored = stored("sync", results.size());
        Set<Integer> queues = new HashSet<>();
        for (Map.Entry<String, SendResult> entry : results.entrySet()) {
            Stored found = stored.get(entry.getKey());
            check(found, Integer.parseInt(entry.getKey().replaceAll("[^0-9]", "")));
            check(found, entry.getValue());
            queues.add(found.number("queue"));
        }
        same(4 * SHARDS, queues.size(), "four queues of each shard, and all of them are used");
    }

    private void asynchronousSends() throws Exception {
        Map<String, SendResult> results = new ConcurrentHashMap<>();
        List<Throwable> errors = new ArrayList<>();
        CountDownLatch left = new CountDownLatch(300);
        for (int number = 0; number < 300; number++) {
            String body = "async-" + number;
            producer.send(message("async", body, number), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    results.put(body, result);
                    left.countDown();
                }

                @Override
                public void onException(Throwable error) {
                    errors.add(error);
                    left.countDown();
                }
            });
        }
        check(left.await(60, TimeUnit.SECONDS), "all are answered");
        check(errors.isEmpty(), "no errors: " + errors);
        Map<String, Stored> stored = stored("async", 300);
        results.forEach((body, result) -> check(stored.get(body), result));
        same(300, results.size(), "results");
    }

    private void oneWaySends() throws Exception {
        for (int number = 0; number < 100; number++) {
            producer.sendOneway(message("one-way", "one-way-" + number, number));
        }
        Map<String, Stored> stored = stored("one-way", 100);
        for (int number = 0; number < 100; number++) {
            check(stored.get("one-way-" + number), number);
        }
    }

    private void batches() throws Exception {
        int sent = 0;
        for (int count : new int[] {1, 10, 1000}) {
            List<Message> batch = new ArrayList<>();
            for (int number = sent; number < sent + count; number++) {
                batch.add(message("batches", "batch-" + number, number));
            }
            SendResult result = producer.send(batch);
            same(SendStatus.SEND_OK, result.getSendStatus(), "status");
            String[] ids = result.getOffsetMsgId().split(",");
            String[] uniqueIds = result.getMsgId().split(",");
            same(count, ids.length, "ids");
            Map<String, Stored> stored = stored("batches", sent + count);
            for (int number = 0; number < count; number++) {
                Stored found = stored.get("batch-" + (sent + number));
                check(found, sent + number);
                same((int) result.getQueueOffset() + number, found.number("offset"), "offset");
                same(ids[number], found.text("id"), "offset message id");
                same(uniqueIds[number], found.text("unique_id"), "unique id");
            }
            sent += count;
        }
    }

    private void compressedBodies() throws Exception {
        String body = "0123456789abcdef".repeat(512);
        SendResult result = producer.send(message("large", body, 1));
        Stored stored = stored("large", 1).get(body);
        check(stored, 1);
        check(stored, result);
    }

    private interface Sending {
        void send() throws Exception;
    }

    private static void refused(int code, Sending sending) throws Exception {
        try {
            sending.send();
        } catch (MQBrokerException error) {
            same(code, error.getResponseCode(), "code of " + error.getErrorMessage());
            return;
        }
        throw new AssertionError("a send is refused with " + code);
    }

    private void refusals() throws Exception {
        Message delayed = message("sync", "delayed", 0);
        MessageAccessor.putProperty(delayed, "TIMER_DELAY_MS", "soon");
        refused(13, () -> producer.send(delayed));
        byte[] large = new byte[5 * 1024 * 1024];
        new Random(7).nextBytes(large);
        refused(13, () -> producer.send(new Message("sync", large)));
        String broker = producer.fetchPublishMessageQueues("sync").get(0).getBrokerName();
        refused(29, () -> producer.send(message("sync", "nowhere", 0), new MessageQueue("sync", broker, 99)));
        refused(13, () -> producer.send(new Message("sync", "a||b", "a tag".getBytes(StandardCharsets.UTF_8))));
        stored("sync", 40);
    }

    private void manyThreads() throws Exception {
        List<Thread> threads = new ArrayList<>();
        Map<String, SendResult> results = new ConcurrentHashMap<>();
        List<Throwable> errors = new ArrayList<>();
        for (int thread = 0; thread < 16; thread++) {
            int first = thread * 100;
            threads.add(new Thread(() -> {
                for (int number = first; number < first + 100; number++) {
                    try {
                        results.put("thread-" + number, producer.send(message("threads", "thread-" + number, number)));
                    } catch (Exception error) {
                        errors.add(error);
                    }
                }
            }));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        check(errors.isEmpty(), "no errors: " + errors);
        Map<String, Stored> stored = stored("threads", 1600);
        results.forEach((body, result) -> check(stored.get(body), result));
    }

    /** Whether a message that was read from a queue is the one that is stored there. */
    private static void check(Stored stored, MessageExt message, MessageQueue queue) {
        String broker = queue.getBrokerName();
        int shard = Integer.parseInt(broker.substring(broker.lastIndexOf('-') + 1));
        same(queue.getQueueId() * SHARDS + shard, stored.number("queue"), "queue");
        same(queue.getQueueId(), message.getQueueId(), "queue of the broker");
        same((int) message.getQueueOffset(), stored.number("offset"), "offset");
        same(message.getMsgId(), stored.text("unique_id"), "unique id");
        same(((MessageClientExt) message).getOffsetMsgId(), stored.text("id"), "offset message id");
        same(message.getKeys(), stored.text("key"), "key");
        same(message.getTags(), stored.text("tag"), "tag");
        check(stored.line.contains("\"number\":\"" + message.getUserProperty("number") + "\""), "property: " + stored.line);
        same("DefaultCluster", message.getProperty("CLUSTER"), "cluster");
        check(message.getBornHostString().equals("127.0.0.1"), "born at " + message.getBornHost());
        check(message.getStoreTimestamp() >= message.getBornTimestamp() - 1000, "stored after it was born");
        same(0, message.getReconsumeTimes(), "deliveries before");
    }

    private static String body(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private void pulls() throws Exception {
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer("pullers");
        consumer.setNamesrvAddr(names);
        consumer.start();
        for (String topic : new String[] {"sync", "large", "batches"}) {
            Map<String, Stored> stored = stored(topic, topic.equals("sync") ? 40 : topic.equals("large") ? 1 : 1011);
            Set<String> found = new HashSet<>();
            for (MessageQueue queue : consumer.fetchSubscribeMessageQueues(topic)) {
                long offset = 0;
                PullResult result = consumer.pull(queue, "*", offset, 7);
                for (; result.getPullStatus() == PullStatus.FOUND; result = consumer.pull(queue, "*", offset, 32)) {
                    for (MessageExt message : result.getMsgFoundList()) {
                        same(offset, message.getQueueOffset(), "each offset in turn");
                        check(stored.get(body(message)), message, queue);
                        check(found.add(body(message)), "once");
                        offset++;
                    }
                    same(offset, result.getNextBeginOffset(), "where to go on");
                }
                same(PullStatus.NO_NEW_MSG, result.getPullStatus(), "at the end");
                same(offset, result.getMaxOffset(), "the end");
                same(0L, result.getMinOffset(), "the beginning");
                same(PullStatus.OFFSET_ILLEGAL, consumer.pull(queue, "*", offset + 1, 32).getPullStatus(), "after the end");
                if (offset > 0) {
                    same(PullStatus.NO_MATCHED_MSG, consumer.pull(queue, "none", 0, 32).getPullStatus(), "nothing matches");
                }
            }
            same(stored.size(), found.size(), "messages of " + topic);
        }
        filtered(consumer);
        waits(consumer);
        consumer.shutdown();
    }

    private static void filtered(DefaultMQPullConsumer consumer) throws Exception {
        int count = 0;
        for (MessageQueue queue : consumer.fetchSubscribeMessageQueues("sync")) {
            PullResult result = consumer.pull(queue, "tag0 || tag2", 0, 32);
            // `null` where nothing matches.
            List<MessageExt> found = result.getMsgFoundList();
            for (MessageExt message : found == null ? new ArrayList<MessageExt>() : found) {
                check(!message.getTags().equals("tag1"), "a tag that is not wanted");
                count++;
            }
            same(result.getMaxOffset(), result.getNextBeginOffset(), "all were looked at");
        }
        same(27, count, "messages with these tags");
    }

    /** A pull that waits is called by the message that it waits for. */
    private void waits(DefaultMQPullConsumer consumer) throws Exception {
        MessageQueue queue = consumer.fetchSubscribeMessageQueues("large").iterator().next();
        long end = consumer.maxOffset(queue);
        CompletableFuture<Long> woken = new CompletableFuture<>();
        new Thread(() -> {
            try {
                PullResult result = consumer.pullBlockIfNotFound(queue, "*", end, 32);
                same("wake", body(result.getMsgFoundList().get(0)), "what it waited for");
                woken.complete(System.nanoTime());
            } catch (Throwable error) {
                woken.completeExceptionally(error);
            }
        }).start();
        Thread.sleep(100);
        check(!woken.isDone(), "it waits");
        producer.send(message("large", "wake", 1), queue);
        long answered = System.nanoTime();
        check(woken.get(20, TimeUnit.SECONDS) - answered < 5_000_000_000L, "before its time is over");
    }

    private void litePulls() throws Exception {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer("lite");
        consumer.setNamesrvAddr(names);
        consumer.setPullBatchSize(3);
        consumer.start();
        List<MessageQueue> queues = new ArrayList<>(consumer.fetchMessageQueues("sync"));
        same(4 * SHARDS, queues.size(), "queues");
        // A new group begins at the first message of a new topic.
        consumer.assign(queues);
        Map<String, Stored> stored = stored("sync", 40);
        for (MessageExt message : polled(consumer, 40)) {
            String id = ((MessageClientExt) message).getOffsetMsgId();
            same(id, stored.get(body(message)).text("id"), "offset message id");
        }
        MessageQueue again = queues.get(0);
        consumer.seek(again, 1);
        long first = Long.MAX_VALUE;
        for (MessageExt message : polled(consumer, 40 / queues.size() - 1)) {
            first = Math.min(first, message.getQueueOffset());
            same(again.getQueueId(), message.getQueueId(), "queue");
        }
        same(1L, first, "from where it sought");
        consumer.shutdown();
    }

    /** So many messages, or more if more come with them; each once. */
    private static List<MessageExt> polled(DefaultLitePullConsumer consumer, int count) {
        List<MessageExt> messages = new ArrayList<>();
        Set<String> ids = new HashSet<>();
        long deadline = System.nanoTime() + 60_000_000_000L;
        while (messages.size() < count && System.nanoTime() < deadline) {
            for (MessageExt message : consumer.poll(1000)) {
                check(ids.add(message.getMsgId()), "once: " + message);
                messages.add(message);
            }
        }
        check(messages.size() >= count, messages.size() + " of " + count + " messages");
        return messages;
    }
}
