import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * Requests and replies of RocketMQ's client for Java, unmodified, over the real broker: what a consumer answers reaches the producer
 * that has asked. Environment: TURBOPUMP (the binary), SHARDS.
 */
public class Requests {
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final int PATIENCE_MS = 60_000;

    private static String names;

    public static void main(String[] arguments) throws Exception {
        Path directory = Files.createTempDirectory("turbopump");
        Process broker = new ProcessBuilder(
            System.getenv("TURBOPUMP"), "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:0", "--http",
            "none", "--namesrv", "127.0.0.1:0", "--shards", String.valueOf(SHARDS), "--segment-bytes", "16MiB")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        try {
            BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
            Pattern address = Pattern.compile("name server listens on (\\S+)");
            for (String line = lines.readLine(); line != null && !line.equals("ready"); line = lines.readLine()) {
                Matcher found = address.matcher(line);
                if (found.find()) {
                    names = found.group(1);
                }
            }
            run();
        } catch (Throwable error) {
            // The client's threads would keep the program alive.
            error.printStackTrace();
            broker.destroyForcibly();
            System.exit(1);
        }
        broker.destroy();
        check(broker.waitFor(30, TimeUnit.SECONDS) && broker.exitValue() == 0, "the broker stops without an error");
        System.exit(0);
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static DefaultMQProducer producer(String group, String instance) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer(group);
        producer.setNamesrvAddr(names);
        producer.setInstanceName(instance);
        producer.setPollNameServerInterval(500);
        producer.setHeartbeatBrokerInterval(500);
        producer.setSendMsgTimeout(PATIENCE_MS);
        producer.start();
        return producer;
    }

    private static Message question(String body) {
        return new Message("questions", "tag", "key-" + body, body.getBytes(StandardCharsets.UTF_8));
    }

    /** A producer is known to the broker, so that replies find it, from its first heartbeat on. */
    private static void awaitKnown(DefaultMQProducer asking) throws Exception {
        long begun = System.nanoTime();
        for (int number = 0;; number++) {
            try {
                asking.request(question("known" + number), 1_000);
                return;
            } catch (RequestTimeoutException unknown) {
                check(System.nanoTime() - begun < PATIENCE_MS * 1_000_000L, "replies reach nobody: " + unknown);
            }
        }
    }

    private static void run() throws Exception {
        DefaultMQProducer asking = producer("askers", "asks");
        DefaultMQProducer answering = producer("repliers", "replies");
        // The topic is made, so that who answers consumes it from the beginning.
        asking.send(question("first"));
        Set<String> failed = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("answers");
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName("consumes");
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("questions", "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                if (body.equals("first") || body.equals("unanswered")) {
                    continue;
                }
                boolean mayFail = body.startsWith("known");
                try {
                    String text = "re: " + body + (body.equals("large") ? "x".repeat(100_000) : "");
                    answering.send(MessageUtil.createReplyMessage(message, text.getBytes(StandardCharsets.UTF_8)), PATIENCE_MS);
                } catch (Exception error) {
                    if (!mayFail) {
                        failed.add(body + ": " + error);
                    }
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        awaitKnown(asking);
        long begun = System.nanoTime();
        for (int number = 0; number < 20; number++) {
            String reply = new String(asking.request(question("q" + number), PATIENCE_MS).getBody(), StandardCharsets.UTF_8);
            check(reply.equals("re: q" + number), "the reply to " + number + " is " + reply + ", and " + failed);
        }
        byte[] large = asking.request(question("large"), PATIENCE_MS).getBody();
        check(large.length == 100_000 + "re: large".length(), "a large reply has " + large.length + " bytes");
        System.out.printf("ok: replies reach those who wait for them (%d ms)%n", (System.nanoTime() - begun) / 1_000_000);
        CompletableFuture<String> called = new CompletableFuture<>();
        asking.request(question("called"), new RequestCallback() {
            @Override
            public void onSuccess(Message message) {
                called.complete(new String(message.getBody(), StandardCharsets.UTF_8));
            }

            @Override
            public void onException(Throwable error) {
                called.completeExceptionally(error);
            }
        }, PATIENCE_MS);
        check(called.get(PATIENCE_MS, TimeUnit.MILLISECONDS).equals("re: called"), "the callback gets the reply");
        System.out.println("ok: a reply calls back");
        try {
            asking.request(question("unanswered"), 500);
            check(false, "nobody has answered");
        } catch (RequestTimeoutException late) {
            System.out.println("ok: what nobody answers is over in time");
        }
        check(failed.isEmpty(), "replies that failed: " + failed);
        System.out.println("works: replies");
        consumer.shutdown();
        asking.shutdown();
        answering.shutdown();
    }
}
