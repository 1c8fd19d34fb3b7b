import com.aliyun.mq.http.MQClient;
import com.aliyun.mq.http.MQConsumer;
import com.aliyun.mq.http.MQProducer;
import com.aliyun.mq.http.MQTransProducer;
import com.aliyun.mq.http.common.AckMessageException;
import com.aliyun.mq.http.common.ServiceException;
import com.aliyun.mq.http.model.AsyncResult;
import com.aliyun.mq.http.model.ErrorMessageResult;
import com.aliyun.mq.http.model.Message;
import com.aliyun.mq.http.model.TopicMessage;
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
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * The HTTP SDK com.aliyun.mq:mq-http-sdk, unmodified, against the real broker: what its headers, its dates, its documents
 * and its pool of connections make different. Every request is signed. Environment: TURBOPUMP (the binary), SHARDS.
 */
public class Suite {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final String SHARDS = System.getenv().getOrDefault("SHARDS", "1");
    private static final Pattern ADDRESS = Pattern.compile("127\\.0\\.0\\.1:\\d+");
    private static final Set<String> TOPICS = Set.of("contents", "leases", "order", "transactions", "connections");

    private final Path directory;
    private final Path keys;
    private Process broker;
    private String http = "127.0.0.1:0";
    private String server;
    private MQClient client;

    public static void main(String[] arguments) throws Exception {
        Suite suite = new Suite();
        try {
            suite.start();
            for (String topic : TOPICS) {
                new ProcessBuilder(
                    BINARY, "topic", "create", topic, "--server", suite.server, "--access-key", "key", "--secret-key", "secret")
                    .start().waitFor();
            }
            suite.client = suite.client("key", "secret");
            suite.run("contents come across", suite::contentsComeAcross);
            suite.run("errors have their codes", suite::errorsHaveTheirCodes);
            suite.run("handles are reported one by one", suite::handlesAreReportedOneByOne);
            suite.run("order is kept", suite::orderIsKept);
            suite.run("delays and transactions", suite::delaysAndTransactions);
            suite.run("connections end and the client goes on", suite::connectionsEndAndTheClientGoesOn);
            suite.client.close();
            // Every request was signed, and strangers' were refused.
            for (String what : List.of("send", "pull", "keys", "retry", "order", "delay", "transactions")) {
                System.out.println("works: " + what);
            }
        } catch (Throwable error) {
            // The client's threads would keep the program alive.
            error.printStackTrace();
            if (suite.broker != null) {
                suite.broker.destroyForcibly();
            }
            System.exit(1);
        }
        suite.stop();
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

    private Suite() throws Exception {
        directory = Files.createTempDirectory("turbopump-java-");
        keys = directory.resolve("keys.toml");
        Files.writeString(keys, "[[keys]]\nid = \"key\"\nsecret = \"secret\"\nadmin = true\n");
    }

    /** Starts the broker; again on the same HTTP address. */
    private void start() throws Exception {
        ProcessBuilder builder = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:0", "--http", http, "--namesrv", "none",
            "--shards", SHARDS, "--lease", "2s", "--ordered-lease", "2s", "--transaction-immunity", "1s",
            "--transaction-check-interval", "1s", "--http-idle-timeout", "1s", "--access-keys", keys.toString());
        broker = builder.redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream()));
        for (String line = lines.readLine(); !"ready".equals(line); line = lines.readLine()) {
            check(line != null, "the broker does not start");
            Matcher address = ADDRESS.matcher(line);
            if (line.contains("HTTP listens on") && address.find()) {
                http = address.group();
            } else if (line.contains("shard 0 ") && address.find()) {
                server = address.group();
            }
        }
    }

    private void stop() throws Exception {
        broker.destroy();
        check(broker.waitFor(10, TimeUnit.SECONDS), "the broker does not stop");
    }

    private MQClient client(String key, String secret) {
        return new MQClient("http://" + http, key, secret);
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    private static void same(Object expected, Object found) {
        check(expected.equals(found), "expected " + expected + ", found " + found);
    }

    private static String failure(Case body) throws Exception {
        try {
            body.run();
        } catch (ServiceException error) {
            check(error.getRequestId().matches("[0-9A-F]{24}"), "no request id: " + error);
            return error.getErrorCode();
        }
        throw new AssertionError("the call succeeded");
    }

    private static TopicMessage message(String body) {
        TopicMessage message = new TopicMessage();
        message.setMessageBody(body.getBytes(StandardCharsets.UTF_8));
        return message;
    }

    private static String body(Message message) {
        return new String(message.getMessageBodyBytes(), StandardCharsets.UTF_8);
    }

    private static List<String> handles(List<Message> messages) {
        return messages.stream().map(Message::getReceiptHandle).collect(Collectors.toList());
    }

    private interface Receiver {
        List<Message> receive();
    }

    private static List<Message> drain(MQConsumer consumer, int count, Receiver receiver) {
        List<Message> messages = new ArrayList<>();
        while (messages.size() < count) {
            List<Message> found = receiver.receive();
            check(found != null && !found.isEmpty(), "nothing came");
            consumer.ackMessage(handles(found));
            messages.addAll(found);
        }
        same(count, messages.size());
        return messages;
    }

    private void contentsComeAcross() {
        MQProducer producer = client.getProducer("contents");
        Map<String, String> sent = new HashMap<>();
        for (String body : List.of("plain", "<&\"'>\r\n\t ]]>", "\u00e4\u4e2d\ud83d\ude00", "x".repeat(100_000))) {
            TopicMessage message = message(body);
            message.setMessageTag("tag");
            message.setMessageKey("key" + sent.size());
            message.getProperties().put("name", "value " + body.length());
            TopicMessage answer = producer.publishMessage(message);
            check(answer.getMessageId().matches("[0-9A-F]{32}"), answer.getMessageId());
            sent.put(answer.getMessageId(), body);
        }
        MQConsumer consumer = client.getConsumer(null, "contents", "g", "a||tag");
        for (Message message : drain(consumer, sent.size(), () -> consumer.consumeMessage(16, 20))) {
            check(!message.isErrorMessage(), "damaged: " + message);
            String body = sent.remove(message.getMessageId());
            same(body, body(message));
            same("tag", message.getMessageTag());
            same("value " + body.length(), message.getProperties().get("name"));
            check(message.getMessageKey().startsWith("key"), message.getMessageKey());
            same(1, message.getConsumedTimes());
            same(2_000L, message.getNextConsumeTime() - message.getFirstConsumeTime());
        }
        check(sent.isEmpty(), "missing: " + sent.keySet());
    }

    private void errorsHaveTheirCodes() throws Exception {
        same("TopicNotExist", failure(() -> client.getProducer("nothing").publishMessage(message("x"))));
        same("TopicNotExist", failure(() -> client.getProducer("elsewhere", "contents").publishMessage(message("x"))));
        MQConsumer consumer = client.getConsumer("contents", "g");
        long begun = System.nanoTime();
        // The client says MessageNotExist in this way. Twice as long as connections may be idle here: after as long, the end of
        // another one of the client's would cross its next request.
        check(consumer.consumeMessage(1, 2) == null, "there is nothing to receive");
        check(System.nanoTime() - begun > 1_900_000_000, "the wait was short");
        for (String[] stranger : new String[][] {{"key", "wrong"}, {"nobody", "secret"}}) {
            MQClient other = client(stranger[0], stranger[1]);
            same("AccessDenied", failure(() -> other.getProducer("contents").publishMessage(message("x"))));
            other.close();
        }
    }

    private void handlesAreReportedOneByOne() {
        MQProducer producer = client.getProducer("leases");
        MQConsumer consumer = client.getConsumer("leases", "g");
        producer.publishMessage(message("again"));
        Message first = consumer.consumeMessage(1, 20).get(0);
        Message again = consumer.consumeMessage(1, 20).get(0);
        same(first.getMessageId(), again.getMessageId());
        same(2, again.getConsumedTimes());
        same(first.getFirstConsumeTime(), again.getFirstConsumeTime());
        try {
            consumer.ackMessage(List.of(first.getReceiptHandle(), again.getReceiptHandle(), "forged"));
        } catch (AckMessageException error) {
            Map<String, ErrorMessageResult> failed = error.getErrorMessages();
            same(Set.of(first.getReceiptHandle(), "forged"), new HashSet<>(failed.keySet()));
            same("MessageNotExist", failed.get(first.getReceiptHandle()).getErrorCode());
            same("ReceiptHandleError", failed.get("forged").getErrorCode());
            return;
        }
        throw new AssertionError("a forged handle was acknowledged");
    }

    private void orderIsKept() {
        MQProducer producer = client.getProducer("order");
        for (int number = 0; number < 12; number++) {
            TopicMessage message = message(number % 3 + ":" + number);
            message.setShardingKey("key" + number % 3);
            producer.publishMessage(message);
        }
        MQConsumer consumer = client.getConsumer("order", "g");
        Map<String, List<Integer>> seen = new HashMap<>();
        for (Message message : drain(consumer, 12, () -> consumer.consumeMessageOrderly(3, 20))) {
            String[] parts = body(message).split(":");
            same("key" + parts[0], message.getShardingKey());
            seen.computeIfAbsent(parts[0], key -> new ArrayList<>()).add(Integer.valueOf(parts[1]));
        }
        same(Map.of("0", List.of(0, 3, 6, 9), "1", List.of(1, 4, 7, 10), "2", List.of(2, 5, 8, 11)), seen);
    }

    private void delaysAndTransactions() throws Exception {
        MQConsumer consumer = client.getConsumer("transactions", "g");
        TopicMessage delayed = message("delayed");
        long due = System.currentTimeMillis() + 1_500;
        delayed.setStartDeliverTime(due);
        client.getProducer("transactions").publishMessage(delayed);
        same("delayed", body(drain(consumer, 1, () -> consumer.consumeMessage(1, 20)).get(0)));
        check(System.currentTimeMillis() >= due, "too early");
        MQTransProducer producer = client.getTransProducer("transactions", "producers");
        Map<String, String> handles = new HashMap<>();
        for (String body : List.of("commit", "roll back", "undecided")) {
            TopicMessage half = message(body);
            half.setTransCheckImmunityTime(1);
            handles.put(body, producer.publishMessage(half).getReceiptHandle());
        }
        producer.commit(handles.get("commit"));
        producer.rollback(handles.get("roll back"));
        same("commit", body(drain(consumer, 1, () -> consumer.consumeMessage(1, 20)).get(0)));
        Message half = producer.consumeHalfMessage(3, 5).get(0);
        same("undecided", body(half));
        same(1, half.getTransCheckImmunityTime());
        producer.commit(half.getReceiptHandle());
        same("undecided", body(drain(consumer, 1, () -> consumer.consumeMessage(1, 20)).get(0)));
        check(consumer.consumeMessage(1, 1) == null, "one was rolled back");
    }

    /** The pool holds many connections; the broker drops them when idle, and all of them when it restarts. */
    private void connectionsEndAndTheClientGoesOn() throws Exception {
        MQProducer producer = client.getProducer("connections");
        MQConsumer consumer = client.getConsumer("connections", "g");
        for (int round = 0; round < 3; round++) {
            List<AsyncResult<TopicMessage>> pending = new ArrayList<>();
            for (int number = 0; number < 30; number++) {
                pending.add(producer.asyncPublishMessage(message(round + "/" + number), null));
            }
            for (AsyncResult<TopicMessage> answer : pending) {
                check(answer.getResult() != null, "not stored: " + answer.getException());
            }
            drain(consumer, 30, () -> consumer.consumeMessage(16, 20));
            if (round == 0) {
                Thread.sleep(3_000);
            } else {
                stop();
                start();
            }
        }
    }
}
