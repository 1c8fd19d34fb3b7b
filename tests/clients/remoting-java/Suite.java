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
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * RocketMQ's own client for Java, unmodified, against the real broker: what it sends is what `turbopump consume` reads, with
 * the places and ids that it was told. Environment: TURBOPUMP (the binary), SHARDS.
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
        } catch (Throwable error) {
            // The client's threads would keep the program alive.
            error.printStackTrace();
            suite.broker.destroyForcibly();
            System.exit(1);
        }
        suite.producer.shutdown();
        suite.broker.destroy();
        check(suite.broker.waitFor(10, TimeUnit.SECONDS), "the broker stops");
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
        long deadline = System.nanoTime() + 10_000_000_000L;
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
        check(left.await(20, TimeUnit.SECONDS), "all are answered");
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
        delayed.setDelayTimeLevel(3);
        refused(3, () -> producer.send(delayed));
        byte[] large = new byte[5 * 1024 * 1024];
        new Random(7).nextBytes(large);
        refused(13, () -> producer.send(new Message("sync", large)));
        String broker = producer.fetchPublishMessageQueues("sync").get(0).getBrokerName();
        refused(29, () -> producer.send(message("sync", "nowhere", 0), new MessageQueue("sync", broker, 99)));
        refused(13, () -> producer.send(new Message("sync", "a||b", "a tag".getBytes(StandardCharsets.UTF_8))));
        refused(3, () -> producer.send(new Message("%RETRY%group", "to a group".getBytes(StandardCharsets.UTF_8))));
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
}
