import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
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
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.store.OffsetStore;
import org.apache.rocketmq.client.consumer.store.ReadOffsetType;
import org.apache.rocketmq.client.consumer.store.RemoteBrokerOffsetStore;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * RocketMQ's producer and two push consumers for Java, unmodified, while the broker is killed again and again: what was answered
 * SEND_OK is consumed, no queue is read by both for longer than they take to divide the queues, and what a group has committed stays
 * committed. Environment: TURBOPUMP (the binary), SHARDS, TURBOPUMP_KILL_ROUNDS (2), TURBOPUMP_KILL_SEED; APACHE, the directory with the
 * jars of Apache's broker and name server, has these killed instead.
 */
public class Kills {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final String APACHE = System.getenv("APACHE");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final int ROUNDS = Integer.parseInt(System.getenv().getOrDefault("TURBOPUMP_KILL_ROUNDS", "2"));
    private static final long SEED = Long.parseLong(System.getenv().getOrDefault("TURBOPUMP_KILL_SEED", "1"));
    private static final int QUEUES = 8;
    private static final int SENDERS = 4;
    private static final String TOPIC = "killed";
    private static final String GROUP = "survivors";
    /** Both look every half second who is there, and heartbeats are as far apart; a machine may be busy. */
    private static final long REBALANCE_MS = 15_000;
    private static final long PATIENCE_MS = 60_000;

    private final Path directory = Files.createTempDirectory("turbopump");
    private final Random random = new Random(SEED);
    private final List<Process> apaches = new ArrayList<>();
    private final int port = freePorts(10 * SHARDS);
    private final String names = "127.0.0.1:" + freePorts(1);
    private Process broker;
    private volatile boolean isOver;
    private volatile String wrong;
    private final AtomicInteger sent = new AtomicInteger();
    private final AtomicInteger refused = new AtomicInteger();
    /** Bodies that were answered SEND_OK, and when. */
    private final Map<String, Long> stored = new ConcurrentHashMap<>();
    private final Map<String, Integer> consumed = new ConcurrentHashMap<>();
    /** When a message was consumed last, by either. */
    private final AtomicLong consumedAt = new AtomicLong();
    /** Where each queue ends, as answers have said. */
    private final Map<MessageQueue, Long> ends = new ConcurrentHashMap<>();
    /** What another group has committed, and got an answer to. */
    private final Map<MessageQueue, Long> committed = new ConcurrentHashMap<>();

    public static void main(String[] arguments) throws Exception {
        Kills suite = new Kills();
        int status = 0;
        try {
            suite.run();
        } catch (Throwable error) {
            error.printStackTrace();
            status = 1;
        }
        // The client's threads would keep the program alive.
        suite.broker.destroyForcibly().waitFor();
        for (Process process : suite.apaches) {
            process.destroyForcibly().waitFor();
        }
        System.exit(status);
    }

    private static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError(what);
        }
    }

    private static long now() {
        return System.nanoTime() / 1_000_000;
    }

    /** The first of so many ports that nobody listens on, and not one of those that the system gives to whoever connects. */
    private static int freePorts(int count) throws Exception {
        search:
        while (true) {
            int first = 12_000 + new Random().nextInt(1_000) * 16;
            List<ServerSocket> taken = new ArrayList<>();
            try {
                for (int port = first - 2; port < first + count + 1; port++) {
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

    private Kills() throws Exception {
        if (APACHE != null) {
            Files.createDirectories(directory.resolve("conf"));
            Files.writeString(directory.resolve("conf/rmq.logback.xml"), "<configuration></configuration>");
            Files.writeString(directory.resolve("namesrv.conf"), "listenPort=" + names.split(":")[1] + "\n");
            Files.writeString(directory.resolve("broker.conf"), "brokerName=theirs\nbrokerClusterName=DefaultCluster\nbrokerId=0\n"
                + "brokerIP1=127.0.0.1\nlistenPort=" + port + "\nnamesrvAddr=" + names + "\nstorePathRootDir=" + directory
                + "/store\nstorePathCommitLog=" + directory + "/store/commitlog\nmappedFileSizeCommitLog=67108864\n"
                + "mappedFileSizeConsumeQueue=600000\nflushDiskType=SYNC_FLUSH\ndefaultTopicQueueNums=" + QUEUES + "\n");
            apaches.add(apache("org.apache.rocketmq.namesrv.NamesrvStartup", "namesrv.conf"));
        }
        start();
    }

    private Process apache(String main, String configuration) throws Exception {
        ProcessBuilder builder = new ProcessBuilder(ProcessHandle.current().info().command().orElse("java"), "-Xmx512m",
            "-XX:TieredStopAtLevel=1", "--add-exports", "java.base/sun.nio.ch=ALL-UNNAMED", "-Duser.home=" + directory,
            "-cp", directory.resolve("conf") + ":" + APACHE + "/*", main, "-c", directory.resolve(configuration).toString())
            .redirectOutput(ProcessBuilder.Redirect.DISCARD).redirectErrorStream(true);
        builder.environment().put("ROCKETMQ_HOME", directory.toString());
        return builder.start();
    }

    /** Starts the broker, or starts it again where it was. */
    private void start() throws Exception {
        if (APACHE != null) {
            broker = apache("org.apache.rocketmq.broker.BrokerStartup", "broker.conf");
            for (long end = now() + PATIENCE_MS;; Thread.sleep(50)) {
                try {
                    new java.net.Socket("127.0.0.1", port).close();
                    return;
                } catch (java.io.IOException error) {
                    check(now() < end, "Apache's broker starts");
                }
            }
        }
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
    }

    private DefaultMQPushConsumer consumer(String instance) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(GROUP);
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName(instance);
        consumer.setPollNameServerInterval(500);
        consumer.setHeartbeatBrokerInterval(500);
        consumer.setPersistConsumerOffsetInterval(200);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(TOPIC, "*");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                if (!body.equals(message.getUserProperty("number"))) {
                    wrong = "a message is not as it was sent: " + message;
                }
                consumed.merge(body, 1, Integer::sum);
                consumedAt.set(now());
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }

    private static Set<String> queues(DefaultMQPushConsumer consumer) {
        Set<String> queues = new TreeSet<>();
        consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().forEach((queue, state) -> {
            if (queue.getTopic().equals(TOPIC) && !state.isDropped()) {
                queues.add(queue.getBrokerName() + ":" + queue.getQueueId());
            }
        });
        return queues;
    }

    /** Sends one after the other until the suite ends. */
    private void sends(DefaultMQProducer producer) {
        while (!isOver) {
            String body = "message-" + sent.getAndIncrement();
            Message message = new Message(TOPIC, body.getBytes(StandardCharsets.UTF_8));
            message.putUserProperty("number", body);
            try {
                SendResult result = producer.send(message, 1_000);
                if (result.getSendStatus() == SendStatus.SEND_OK) {
                    ends.merge(result.getMessageQueue(), result.getQueueOffset() + 1, Long::max);
                    stored.put(body, now());
                }
                Thread.sleep(2);
            } catch (Exception error) {
                refused.incrementAndGet();
                pause(20);
            }
        }
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    /** Looks all the time which queues both have, and for how long. */
    private void watches(DefaultMQPushConsumer first, DefaultMQPushConsumer second) {
        Map<String, Long> since = new HashMap<>();
        for (; !isOver; pause(20)) {
            Set<String> both = queues(first);
            both.retainAll(queues(second));
            since.keySet().retainAll(both);
            for (String queue : both) {
                long begun = since.computeIfAbsent(queue, ignored -> now());
                if (now() - begun > REBALANCE_MS) {
                    wrong = queue + " is read by both since " + (now() - begun) + " ms";
                }
            }
        }
    }

    /** Commits for a group that nobody consumes as, and waits for each answer, which the consumers do not. */
    private void commits(OffsetStore store) {
        for (; !isOver; pause(10)) {
            ends.forEach((queue, end) -> {
                try {
                    store.updateConsumeOffsetToBroker(queue, end, false);
                    committed.put(queue, end);
                } catch (Exception error) {
                    pause(20);
                }
            });
        }
    }

    /** Whether what was answered as committed is still so. */
    private void checkCommitted(OffsetStore store, Map<MessageQueue, Long> before) throws Exception {
        for (Map.Entry<MessageQueue, Long> entry : before.entrySet()) {
            // Below zero while the broker cannot be asked.
            long[] found = {-1};
            await(entry.getKey() + " has an offset", PATIENCE_MS, () -> {
                found[0] = store.readOffset(entry.getKey(), ReadOffsetType.READ_FROM_STORE);
                return found[0] >= 0;
            }, () -> found[0]);
            check(found[0] >= entry.getValue(), entry + " was committed, and is " + found[0] + " after a kill");
        }
    }

    private void await(String what, long patience, java.util.function.BooleanSupplier isSo,
        java.util.function.Supplier<Object> found) throws Exception {
        for (long end = now() + patience; !isSo.getAsBoolean(); Thread.sleep(20)) {
            check(wrong == null, wrong);
            check(now() < end, what + ", but " + found.get());
        }
    }

    private void run() throws Exception {
        DefaultMQProducer producer = new DefaultMQProducer("producers");
        producer.setNamesrvAddr(names);
        producer.setPollNameServerInterval(500);
        producer.setHeartbeatBrokerInterval(500);
        producer.setDefaultTopicQueueNums(QUEUES);
        producer.start();
        for (long end = now() + PATIENCE_MS;; Thread.sleep(100)) {
            try {
                Message message = new Message(TOPIC, "first".getBytes(StandardCharsets.UTF_8));
                message.putUserProperty("number", "first");
                producer.send(message, 3_000);
                break;
            } catch (Exception error) {
                check(now() < end, "the first message is taken: " + error);
            }
        }
        DefaultMQPushConsumer first = consumer("first");
        DefaultMQPushConsumer second = consumer("second");
        await("both have queues", PATIENCE_MS, () -> !queues(first).isEmpty() && !queues(second).isEmpty(),
            () -> queues(first) + " and " + queues(second));
        List<Thread> threads = new ArrayList<>();
        for (int sender = 0; sender < SENDERS; sender++) {
            threads.add(new Thread(() -> sends(producer)));
        }
        threads.add(new Thread(() -> watches(first, second)));
        OffsetStore store =
            new RemoteBrokerOffsetStore(first.getDefaultMQPushConsumerImpl().getmQClientFactory(), "committers");
        threads.add(new Thread(() -> commits(store)));
        threads.forEach(Thread::start);
        for (int round = 1; round <= ROUNDS; round++) {
            Thread.sleep(200 + random.nextInt(1_500));
            Set<String> before = new HashSet<>(stored.keySet());
            Map<MessageQueue, Long> places = new HashMap<>(committed);
            long down = now();
            broker.destroyForcibly().waitFor();
            start();
            long up = now();
            await("messages are taken again", PATIENCE_MS, () -> stored.values().stream().anyMatch(at -> at > up), stored::size);
            long taken = stored.values().stream().filter(at -> at > up).min(Long::compare).orElseThrow();
            await("messages are consumed again", PATIENCE_MS, () -> consumedAt.get() > up, consumed::size);
            long given = consumedAt.get();
            await("all is consumed that was there before", PATIENCE_MS, () -> consumed.keySet().containsAll(before), () -> {
                Set<String> missing = new TreeSet<>(before);
                missing.removeAll(consumed.keySet());
                return missing.size() + " missing: " + missing.stream().limit(5).toList() + "; " + queues(first) + queues(second);
            });
            // Apache's broker keeps offsets in a file that it writes every five seconds.
            if (APACHE == null) {
                checkCommitted(store, places);
            }
            System.out.printf("round %d: up after %d ms; taken again %d ms after that, consumed %d ms, all of before %d ms%n", round,
                up - down, taken - up, given - up, now() - up);
        }
        isOver = true;
        for (Thread thread : threads) {
            thread.join();
        }
        Set<String> all = stored.keySet();
        await("all is consumed", PATIENCE_MS, () -> consumed.keySet().containsAll(all), () -> {
            Set<String> missing = new TreeSet<>(all);
            missing.removeAll(consumed.keySet());
            return missing.size() + " missing: " + missing.stream().limit(5).toList();
        });
        check(wrong == null, wrong);
        long again = consumed.values().stream().filter(count -> count > 1).count();
        System.out.printf("ok: %d kills; %d messages answered SEND_OK, %d sends failed, all consumed, %d of them more than once%n",
            ROUNDS, all.size(), refused.get(), again);
        System.out.println("works: kills");
        first.shutdown();
        second.shutdown();
        producer.shutdown();
    }
}
