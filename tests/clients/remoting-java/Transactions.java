import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's producer of transactions for Java, unmodified, against the real broker: what is committed is seen once, what is not is
 * never seen, whoever decides and whoever dies meanwhile. Environment: TURBOPUMP (the binary), SHARDS. With arguments it is the
 * producer that dies: NAMES TOPIC.
 */
public class Transactions {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));

    private final Path directory = Files.createTempDirectory("turbopump");
    private final int port = freePorts(10 * SHARDS);
    private final String names = "127.0.0.1:" + freePorts(1);
    private Process broker;

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) {
            Producer dying = new Producer(arguments[0], "shared", "dies", body -> LocalTransactionState.UNKNOW);
            dying.isIgnorant = true;
            for (int number = 0; number < 4 * SHARDS; number++) {
                dying.send(arguments[1], "left-" + number);
            }
            System.out.println("sent");
            Thread.sleep(600_000);
        }
        Transactions suite = new Transactions();
        try {
            suite.run("what is committed is seen, what is rolled back is not", suite::decisions);
            suite.run("who does not know is asked", suite::checks);
            suite.run("of a producer that was killed another one is asked", suite::takeOver);
            suite.run("a broker that is killed before the commit asks", suite::brokerRestarts);
            System.out.println("works: transactions");
        } catch (Throwable error) {
            // The client's threads would keep the program alive.
            error.printStackTrace();
            suite.broker.destroyForcibly();
            System.exit(1);
        }
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

    private Transactions() throws Exception {
        start();
    }

    /** Starts the broker, or starts it again where it was. Producers are asked after two seconds, and every second: a busy machine's answer is
     * not to be waited for with another question. */
    private void start() throws Exception {
        broker = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:" + port, "--http", "none",
            "--namesrv", names, "--shards", String.valueOf(SHARDS), "--segment-bytes", "16MiB", "--transaction-immunity", "2s",
            "--transaction-check-interval", "1s")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
        String line = lines.readLine();
        while (line != null && !line.equals("ready")) {
            line = lines.readLine();
        }
        check(line != null, "the broker starts");
    }

    /** How often each body of a topic is there, by the command line. */
    private Map<String, Integer> stored(String topic) throws Exception {
        Process command = new ProcessBuilder(BINARY, "consume", topic, "-o", "json", "--server", "127.0.0.1:" + port).start();
        Map<String, Integer> bodies = new TreeMap<>();
        Pattern body = Pattern.compile("\"body\":\"([^\"]*)");
        for (String line : new String(command.getInputStream().readAllBytes(), StandardCharsets.UTF_8).split("\n")) {
            Matcher found = body.matcher(line);
            if (found.find()) {
                bodies.merge(found.group(1), 1, Integer::sum);
            }
        }
        return bodies;
    }

    private void await(String topic, Map<String, Integer> expected) throws Exception {
        for (long end = System.nanoTime() + 60_000_000_000L; !stored(topic).equals(expected); Thread.sleep(100)) {
            check(System.nanoTime() < end, topic + " has " + stored(topic) + " instead of " + expected);
        }
    }

    /** A producer that decides by a message's body. */
    private static final class Producer implements TransactionListener {
        private final TransactionMQProducer producer;
        private final Function<String, LocalTransactionState> decision;
        /** How often it was asked about each body. */
        private final Map<String, Integer> asked = new ConcurrentHashMap<>();
        /** It does not know either when it is asked. */
        private volatile boolean isIgnorant;
        private volatile String wrong;

        private Producer(String names, String group, String instance, Function<String, LocalTransactionState> decision)
            throws Exception {
            this.decision = decision;
            producer = new TransactionMQProducer(group);
            producer.setNamesrvAddr(names);
            producer.setInstanceName(instance);
            producer.setPollNameServerInterval(500);
            producer.setHeartbeatBrokerInterval(500);
            producer.setTransactionListener(this);
            producer.setSendMsgTimeout(60_000);
            producer.start();
        }

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            return decision.apply(new String(message.getBody(), StandardCharsets.UTF_8));
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            String body = new String(message.getBody(), StandardCharsets.UTF_8);
            int count = asked.merge(body, 1, Integer::sum);
            if (!("key-" + body).equals(message.getKeys()) || !body.equals(message.getUserProperty("number"))
                || !String.valueOf(count).equals(message.getProperty("TRANSACTION_CHECK_TIMES"))
                && !body.startsWith("left") || message.getTransactionId() == null) {
                wrong = message.toString();
            }
            if (isIgnorant || body.startsWith("late") && count < 3) {
                return LocalTransactionState.UNKNOW;
            }
            return body.contains("back") ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
        }

        private TransactionSendResult send(String topic, String body) throws Exception {
            Message message = new Message(topic, "tag", "key-" + body, body.getBytes(StandardCharsets.UTF_8));
            message.putUserProperty("number", body);
            TransactionSendResult result = producer.sendMessageInTransaction(message, null);
            same(SendStatus.SEND_OK, result.getSendStatus(), "status of " + body);
            same(result.getMsgId(), result.getTransactionId(), "transaction of " + body);
            return result;
        }

        private void stop() {
            check(wrong == null, "it was asked about " + wrong);
            producer.shutdown();
        }
    }

    private static LocalTransactionState atOnce(String body) {
        return body.contains("back") ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE;
    }

    private void decisions() throws Exception {
        Producer producer = new Producer(names, "deciders", "decides", Transactions::atOnce);
        Map<String, Integer> committed = new TreeMap<>();
        for (int number = 0; number < 40; number++) {
            boolean isCommitted = number % 3 != 0;
            String body = (isCommitted ? "commit-" : "back-") + number;
            TransactionSendResult result = producer.send("decided", body);
            if (isCommitted) {
                committed.put(body, 1);
                same(LocalTransactionState.COMMIT_MESSAGE, result.getLocalTransactionState(), "decision on " + body);
            }
        }
        await("decided", committed);
        consumed(committed);
        same(Map.of(), producer.asked, "questions");
        producer.stop();
    }

    /** A push consumer is given what was committed, as of a transaction. */
    private void consumed(Map<String, Integer> committed) throws Exception {
        Map<String, Integer> seen = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("consumers");
        consumer.setNamesrvAddr(names);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("decided", "tag");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                boolean isCommitted = (message.getSysFlag() & 0xc) == 0x8;
                boolean hasId = message.getMsgId().equals(message.getTransactionId());
                seen.merge(new String(message.getBody(), StandardCharsets.UTF_8) + (isCommitted && hasId ? "" : "?"), 1, Integer::sum);
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        for (long end = System.nanoTime() + 60_000_000_000L; seen.size() < committed.size(); Thread.sleep(20)) {
            check(System.nanoTime() < end, "consumed: " + seen + " instead of " + committed);
        }
        same(committed, new TreeMap<>(seen), "consumed");
        consumer.shutdown();
    }

    private void checks() throws Exception {
        Producer producer = new Producer(names, "unknowing", "unknowing", body -> LocalTransactionState.UNKNOW);
        Map<String, Integer> committed = new TreeMap<>();
        Map<String, Integer> asked = new TreeMap<>();
        for (int number = 0; number < 12; number++) {
            String body = List.of("commit-", "back-", "late-", "late-back-").get(number % 4) + number;
            producer.send("checked", body);
            asked.put(body, body.startsWith("late") ? 3 : 1);
            if (!body.contains("back")) {
                committed.put(body, 1);
            }
        }
        await("checked", committed);
        for (long end = System.nanoTime() + 60_000_000_000L; !asked.equals(producer.asked); Thread.sleep(20)) {
            check(System.nanoTime() < end, "questions: " + new TreeMap<>(producer.asked) + " instead of " + asked);
        }
        // Whoever has decided is not asked again.
        Thread.sleep(2_400);
        same(asked, new TreeMap<>(producer.asked), "questions");
        same(committed, stored("checked"), "messages");
        producer.stop();
    }

    private void takeOver() throws Exception {
        Process dying = new ProcessBuilder(
            ProcessHandle.current().info().command().orElse("java"), "-XX:TieredStopAtLevel=1", "-cp",
            System.getProperty("java.class.path"), "-Djava.io.tmpdir=" + System.getProperty("java.io.tmpdir"),
            "-Duser.home=" + System.getProperty("user.home"), "Transactions", names, "left")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(dying.getInputStream(), StandardCharsets.UTF_8));
        String line = lines.readLine();
        while (line != null && !line.equals("sent")) {
            line = lines.readLine();
        }
        check(line != null, "the producer that dies sends first");
        dying.destroyForcibly().waitFor();
        same(Map.of(), stored("left"), "what was seen of it");
        Map<String, Integer> committed = new TreeMap<>();
        for (int number = 0; number < 4 * SHARDS; number++) {
            committed.put("left-" + number, 1);
        }
        // It is asked over its connections to whichever shards it has sent to.
        Producer other = new Producer(names, "shared", "takes over", Transactions::atOnce);
        other.send("left-with-route", "commit-0");
        await("left", committed);
        other.stop();
    }

    private void brokerRestarts() throws Exception {
        Producer[] producer = new Producer[1];
        producer[0] = new Producer(names, "survivors", "survives", body -> {
            if (body.equals("commit-between") || body.equals("back-between")) {
                try {
                    broker.destroyForcibly().waitFor();
                    start();
                } catch (Exception error) {
                    throw new AssertionError(error);
                }
            }
            return atOnce(body);
        });
        Map<String, Integer> committed = new TreeMap<>();
        for (String body : List.of("commit-before", "back-before", "commit-between", "back-between", "commit-after")) {
            for (int tries = 0;; tries++) {
                try {
                    producer[0].send("restarted", body);
                    break;
                } catch (org.apache.rocketmq.client.exception.MQClientException error) {
                    // Its connections are those from before the kill.
                    check(tries < 50, "it goes on: " + error);
                    Thread.sleep(200);
                }
            }
            if (body.startsWith("commit")) {
                committed.put(body, 1);
            }
        }
        await("restarted", committed);
        Thread.sleep(2_400);
        same(committed, stored("restarted"), "messages");
        producer[0].stop();
    }
}
