import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.MessageSelector;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * RocketMQ's client for Java, unmodified, against the real broker: consumers that ask by SQL92 expressions, look-ups of messages by
 * key and id, and the trace that clients leave. Environment: TURBOPUMP (the binary), SHARDS.
 */
public class Queries {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final int QUEUES = 8;
    /** True of every message whose number is from 10 to 29 and not a multiple of three. */
    private static final String SQL = "n BETWEEN 10 AND 29 AND TAGS IN ('b', 'c') -- nothing else";

    private final Path directory = Files.createTempDirectory("turbopump");
    private final int port = freePorts(10 * SHARDS);
    private final String names = "127.0.0.1:" + freePorts(1);
    private final Process broker;
    private final DefaultMQProducer producer = new DefaultMQProducer("producers");

    public static void main(String[] arguments) throws Exception {
        Queries suite = new Queries();
        try {
            suite.run("a push consumer gets what its expression is true of", suite::pushed);
            suite.run("so do consumers that pull", suite::pulled);
            System.out.println("works: filters SQL92");
            suite.run("what is no expression is refused before anything is consumed", suite::refused);
            suite.run("messages are found by their keys and ids", suite::found);
            System.out.println("works: look-up");
            suite.run("clients leave a trace of each message", suite::traced);
        } catch (Throwable error) {
            // The client's threads would keep the program alive.
            error.printStackTrace();
            suite.broker.destroyForcibly();
            System.exit(1);
        }
        suite.producer.shutdown();
        suite.broker.destroy();
        check(suite.broker.waitFor(30, TimeUnit.SECONDS) && suite.broker.exitValue() == 0, "the broker stops without an error");
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

    private static void await(String what, BooleanSupplier isSo, Supplier<Object> found) throws Exception {
        for (long end = System.nanoTime() + 60_000_000_000L; !isSo.getAsBoolean(); Thread.sleep(20)) {
            check(System.nanoTime() < end, what + ", but " + found.get());
        }
    }

    /** The first of so many ports that nobody listens on, and not one of those that the system gives to whoever connects. */
    private static int freePorts(int count) throws Exception {
        search:
        while (true) {
            int first = 12_000 + new java.util.Random().nextInt(1_000) * 16;
            List<ServerSocket> taken = new ArrayList<>();
            try {
                for (int port = first; port < first + count; port++) {
                    taken.add(new ServerSocket(port));
                }
                return first;
            } catch (java.io.IOException error) {
                continue search;
            } finally {
                for (ServerSocket socket : taken) {
                    socket.close();
                }
            }
        }
    }

    private Queries() throws Exception {
        broker = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:" + port, "--http", "none",
            "--namesrv", names, "--shards", String.valueOf(SHARDS), "--segment-bytes", "16MiB")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
        String line = lines.readLine();
        while (line != null && !line.equals("ready")) {
            line = lines.readLine();
        }
        check(line != null, "the broker starts");
        producer.setNamesrvAddr(names);
        producer.setPollNameServerInterval(500);
        // What is sent a second time, because a busy machine's answer is late, would be there twice.
        producer.setSendMsgTimeout(60_000);
        producer.start();
    }

    private void create(String topic) throws Exception {
        int exit = new ProcessBuilder(BINARY, "topic", "create", topic, "--queues", String.valueOf(QUEUES), "--server",
            "127.0.0.1:" + port).redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor();
        same(0, exit, "topic create");
    }

    /** Sends messages with these numbers, and returns those that the expression is true of. */
    private Set<String> send(String topic, int from, int to) throws Exception {
        Set<String> wanted = new TreeSet<>();
        for (int number = from; number < to; number++) {
            String tag = List.of("a", "b", "c").get(number % 3);
            Message message = new Message(topic, tag, "key-" + number, (topic + number).getBytes(StandardCharsets.UTF_8));
            message.putUserProperty("n", String.valueOf(number));
            producer.send(message);
            if (number >= 10 && number < 30 && number % 3 != 0) {
                wanted.add(topic + number);
            }
        }
        return wanted;
    }

    private static String body(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private DefaultMQPushConsumer consumer(String group, Set<String> seen, boolean isTraced) {
        DefaultMQPushConsumer consumer = isTraced ? new DefaultMQPushConsumer(group, true, null) : new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName(group);
        consumer.setPollNameServerInterval(500);
        consumer.setHeartbeatBrokerInterval(500);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> seen.add(body(message)));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        return consumer;
    }

    private void pushed() throws Exception {
        create("pushed");
        Set<String> expected = send("pushed", 0, 20);
        Set<String> seen = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer = consumer("by-sql", seen, false);
        consumer.subscribe("pushed", MessageSelector.bySql(SQL));
        consumer.start();
        await("the first are there", () -> seen.size() >= expected.size(), () -> seen);
        // Its pulls wait now: most of what comes does not concern them.
        expected.addAll(send("pushed", 20, 60));
        await("the others are there", () -> seen.size() >= expected.size(), () -> seen);
        expected.addAll(send("pushed", 0, 12));
        await("the last are there", () -> seen.size() >= expected.size(), () -> seen);
        same(expected, new TreeSet<>(seen), "what is pushed");
        consumer.shutdown();
    }

    private void pulled() throws Exception {
        create("pulled");
        Set<String> expected = send("pulled", 0, 40);
        DefaultMQPullConsumer consumer = new DefaultMQPullConsumer("pullers");
        consumer.setNamesrvAddr(names);
        consumer.setHeartbeatBrokerInterval(200);
        consumer.setPollNameServerInterval(200);
        consumer.setRegisterTopics(Set.of("pulled"));
        consumer.start();
        Set<String> seen = new TreeSet<>();
        Set<MessageQueue> queues = consumer.fetchSubscribeMessageQueues("pulled");
        // The client asks no broker for this whose version it has not heard in the answer to a heartbeat.
        await("the client knows its brokers", () -> {
            try {
                for (MessageQueue queue : queues) {
                    consumer.pull(queue, MessageSelector.bySql(SQL), 0, 1);
                }
                return true;
            } catch (Exception error) {
                check(error.getMessage().contains("does not upgrade"), error.toString());
                return false;
            }
        }, () -> queues);
        for (MessageQueue queue : queues) {
            long end = consumer.maxOffset(queue);
            for (long offset = 0; offset < end; ) {
                PullResult result = consumer.pull(queue, MessageSelector.bySql(SQL), offset, 32);
                check(result.getNextBeginOffset() > offset, "a pull gets on: " + result);
                offset = result.getNextBeginOffset();
                if (result.getMsgFoundList() != null) {
                    result.getMsgFoundList().forEach(message -> seen.add(body(message)));
                }
            }
        }
        same(expected, seen, "what is pulled");
        consumer.shutdown();

        DefaultLitePullConsumer lite = new DefaultLitePullConsumer("lite-pullers");
        lite.setNamesrvAddr(names);
        lite.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        lite.subscribe("pulled", MessageSelector.bySql(SQL));
        lite.start();
        Set<String> polled = new TreeSet<>();
        for (long end = System.nanoTime() + 60_000_000_000L; polled.size() < expected.size() && System.nanoTime() < end; ) {
            lite.poll(200).forEach(message -> polled.add(body(message)));
        }
        same(expected, polled, "what is polled");
        lite.shutdown();
    }

    private void refused() throws Exception {
        create("refused");
        DefaultMQPushConsumer consumer = consumer("refused", new HashSet<>(), false);
        consumer.subscribe("refused", MessageSelector.bySql("n >"));
        try {
            consumer.start();
            check(false, "a consumer without an expression starts");
        } catch (MQClientException error) {
            check(String.valueOf(error).contains("at character 4"), error.toString());
        }
        consumer.shutdown();
    }

    private void found() throws Exception {
        create("found");
        long begun = System.currentTimeMillis();
        List<SendResult> sent = new ArrayList<>();
        for (int number = 0; number < 12; number++) {
            Message message = new Message("found", "t", "k" + number + " all", ("found" + number).getBytes(StandardCharsets.UTF_8));
            sent.add(producer.send(message));
        }
        long ended = System.currentTimeMillis() + 1;
        for (int number = 0; number < sent.size(); number++) {
            SendResult result = sent.get(number);
            for (String id : List.of(result.getMsgId(), result.getOffsetMsgId())) {
                same("found" + number, body(producer.viewMessage("found", id)), "the message " + id);
            }
        }
        QueryResult all = producer.queryMessage("found", "all", 32, begun, ended);
        Set<String> bodies = new TreeSet<>();
        all.getMessageList().forEach(message -> bodies.add(body(message)));
        same(12, bodies.size(), "those with the key that all have");
        List<MessageExt> one = producer.queryMessage("found", "k7", 32, begun, ended).getMessageList();
        same(1, one.size(), "those with the key that one has");
        same("found7", body(one.get(0)), "its body");
        same(sent.get(7).getMsgId(), one.get(0).getMsgId(), "its id");
        try {
            producer.queryMessage("found", "nowhere", 32, begun, ended);
            check(false, "a key that nobody has is found");
        } catch (MQClientException error) {
            check(error.getMessage().contains("no message"), error.toString());
        }
    }

    private void traced() throws Exception {
        create("traced");
        DefaultMQProducer tracing = new DefaultMQProducer("tracing-producers", true, null);
        tracing.setNamesrvAddr(names);
        tracing.setInstanceName("tracing");
        tracing.start();
        Set<String> seen = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer = consumer("tracing-consumers", seen, true);
        consumer.subscribe("traced", "*");
        consumer.start();
        SendResult sent = tracing.send(new Message("traced", "t", "trace-key", "traced".getBytes(StandardCharsets.UTF_8)));
        await("it is consumed", () -> seen.contains("traced"), () -> seen);
        // Both send what they have to tell within five seconds.
        Set<String> told = new TreeSet<>();
        await("both have left a trace", () -> {
            try {
                long now = System.currentTimeMillis();
                for (MessageExt trace : producer.queryMessage("RMQ_SYS_TRACE_TOPIC", sent.getMsgId(), 32, 0, now + 1000).getMessageList()) {
                    for (String context : body(trace).split("\u0002")) {
                        String[] fields = context.split("\u0001");
                        if (List.of(fields).contains(sent.getMsgId())) {
                            told.add(fields[0]);
                        }
                    }
                }
            } catch (MQClientException | InterruptedException error) {
                return false;
            }
            return told.containsAll(List.of("Pub", "SubBefore", "SubAfter"));
        }, () -> told);
        tracing.shutdown();
        consumer.shutdown();
    }
}
