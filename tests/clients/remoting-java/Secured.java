import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.acl.common.AclClientRPCHook;
import org.apache.rocketmq.acl.common.SessionCredentials;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.remoting.RPCHook;

/**
 * RocketMQ's client for Java, unmodified, against the real broker that asks for keys and speaks TLS only: who has a key does what its
 * rules allow, and nobody else anything. Environment: TURBOPUMP (the binary), SHARDS, TLS_FILES (a directory with certificate.pem and
 * key.pem).
 */
public class Secured {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final String SHARDS = System.getenv().getOrDefault("SHARDS", "1");
    private static final String TLS_FILES = System.getenv("TLS_FILES");

    private static String names;

    public static void main(String[] arguments) throws Exception {
        Path directory = Files.createTempDirectory("turbopump");
        Path keys = directory.resolve("keys.toml");
        Files.writeString(keys, "[[keys]]\nid = \"sends\"\nsecret = \"first secret\"\npublish = [\"guarded\"]\n"
            + "[[keys]]\nid = \"consumes\"\nsecret = \"second secret\"\nconsume = [{ topic = \"guarded\", group = \"readers\" }]\n");
        Process broker = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:0", "--http", "none", "--namesrv",
            "127.0.0.1:0", "--shards", SHARDS, "--segment-bytes", "16MiB", "--access-keys", keys.toString(), "--tls-certificate",
            TLS_FILES + "/certificate.pem", "--tls-key", TLS_FILES + "/key.pem", "--tls-mode", "enforcing")
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

    private static RPCHook signs(String key, String secret) {
        return new AclClientRPCHook(new SessionCredentials(key, secret));
    }

    private static DefaultMQProducer producer(String instance, RPCHook hook, boolean isWithinTls) throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("producers", hook);
        producer.setNamesrvAddr(names);
        producer.setInstanceName(instance);
        producer.setUseTLS(isWithinTls);
        producer.setSendMsgTimeout(60_000);
        producer.start();
        return producer;
    }

    private static Message message(String body) {
        return new Message("guarded", "tag", "key-" + body, body.getBytes(StandardCharsets.UTF_8));
    }

    private static void refused(String instance, RPCHook hook, boolean isWithinTls) throws Exception {
        DefaultMQProducer producer = producer(instance, hook, isWithinTls);
        try {
            producer.send(message(instance), 5_000);
            check(false, "what " + instance + " sends is taken");
        } catch (Exception error) {
            // Of what class it is, is as different as where it is noticed.
            System.out.println("ok: what " + instance + " sends is refused: " + error.getMessage().lines().findFirst().orElse(""));
        }
        producer.shutdown();
    }

    private static void run() throws Exception {
        DefaultMQProducer sending = producer("sends", signs("sends", "first secret"), true);
        Set<String> expected = new TreeSet<>();
        for (int number = 0; number < 20; number++) {
            sending.send(message("guarded-" + number));
            expected.add("guarded-" + number);
        }
        refused("who has another secret", signs("sends", "another secret"), true);
        refused("who has no key", null, true);
        refused("who may only consume", signs("consumes", "second secret"), true);
        refused("who comes in the clear", signs("sends", "first secret"), false);
        Set<String> seen = ConcurrentHashMap.newKeySet();
        DefaultMQPushConsumer consumer =
            new DefaultMQPushConsumer("readers", signs("consumes", "second secret"), new AllocateMessageQueueAveragely());
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName("consumes");
        consumer.setUseTLS(true);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("guarded", "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                seen.add(new String(message.getBody(), StandardCharsets.UTF_8));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        for (long end = System.nanoTime() + 60_000_000_000L; !seen.containsAll(expected); Thread.sleep(20)) {
            check(System.nanoTime() < end, "consumed: " + seen + " instead of " + expected);
        }
        check(expected.equals(new TreeSet<>(seen)), "consumed: " + seen + " instead of " + expected);
        System.out.println("ok: who may consume is given what was sent");
        System.out.println("works: keys");
        System.out.println("works: TLS");
        consumer.shutdown();
        sending.shutdown();
    }
}
