import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's client for Java, unmodified, while the broker is killed again and again, with everything at once: consumers in order,
 * transactions, and messages that are given back. No order is broken, nobody is given what was not committed, and what was answered
 * is consumed. Environment: TURBOPUMP (the binary), SHARDS, TURBOPUMP_KILL_ROUNDS (2), TURBOPUMP_KILL_SEED. The client's locks have
 * to be set down with the broker's, see run.sh.
 */
public class KillsOfAll {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final int ROUNDS = Integer.parseInt(System.getenv().getOrDefault("TURBOPUMP_KILL_ROUNDS", "2"));
    private static final long SEED = Long.parseLong(System.getenv().getOrDefault("TURBOPUMP_KILL_SEED", "1"));
    private static final int QUEUES = 8;
    private static final int KEYS = 16;
    private static final String ROWS = "rows";
    private static final String DEALS = "deals";
    private static final String ERRANDS = "errands";
    private static final String STUMBLERS = "stumblers";
    /** What the client sends to its retries itself waits for ten seconds, or thirty, and a machine may be busy. */
    private static final long PATIENCE_MS = 90_000;

    private final Path directory = Files.createTempDirectory("turbopump");
    private final Random random = new Random(SEED);
    private final int port = freePorts(10 * SHARDS);
    private final String names = "127.0.0.1:" + freePorts(1);
    private final Rows rows = new Rows();
    private final Deals deals = new Deals();
    private final Errands errands = new Errands();
    private Process broker;
    private volatile boolean isOver;
    private volatile String wrong;

    public static void main(String[] arguments) throws Exception {
        KillsOfAll suite = new KillsOfAll();
        int status = 0;
        try {
            suite.run();
        } catch (Throwable error) {
            error.printStackTrace();
            status = 1;
        }
        // The client's threads would keep the program alive.
        suite.broker.destroyForcibly().waitFor();
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

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private void await(String what, BooleanSupplier isSo, Supplier<Object> found) throws Exception {
        for (long end = now() + PATIENCE_MS; !isSo.getAsBoolean(); Thread.sleep(20)) {
            check(wrong == null, wrong);
            check(now() < end, what + ", but " + found.get());
        }
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

    private KillsOfAll() throws Exception {
        start();
        for (String topic : List.of(ROWS, DEALS, ERRANDS)) {
            command("topic", "create", topic, "--queues", String.valueOf(QUEUES));
        }
    }

    /** Starts the broker, or starts it again where it was. */
    private void start() throws Exception {
        broker = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:" + port, "--http", "none",
            "--namesrv", names, "--shards", String.valueOf(SHARDS), "--segment-bytes", "16MiB", "--lock-lease", "3s",
            "--transaction-immunity", "500ms", "--transaction-check-interval", "500ms", "--log-level", "warn")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
        String line = lines.readLine();
        while (line != null && !line.equals("ready")) {
            line = lines.readLine();
        }
        check(line != null, "the broker starts");
    }

    /** What a command says. */
    private String command(String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of(BINARY));
        command.addAll(List.of(arguments));
        command.addAll(List.of("--server", "127.0.0.1:" + port));
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        check(process.waitFor() == 0, command + " fails: " + said);
        return said;
    }

    /** How often each body of a topic is stored. */
    private Map<String, Integer> stored(String topic) throws Exception {
        Map<String, Integer> bodies = new TreeMap<>();
        Pattern body = Pattern.compile("\"body\":\"([^\"]*)");
        for (String line : command("consume", topic, "-o", "json").split("\n")) {
            Matcher found = body.matcher(line);
            if (found.find()) {
                bodies.merge(found.group(1), 1, Integer::sum);
            }
        }
        return bodies;
    }

    private static String body(MessageExt message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    private static Message message(String topic, String body) {
        return new Message(topic, body.getBytes(StandardCharsets.UTF_8));
    }

    private <P extends DefaultMQProducer> P set(P producer, String instance) {
        producer.setNamesrvAddr(names);
        producer.setInstanceName(instance);
        producer.setPollNameServerInterval(500);
        producer.setHeartbeatBrokerInterval(500);
        // What comes twice would be by the client's own doing.
        producer.setRetryTimesWhenSendFailed(0);
        return producer;
    }

    private DefaultMQPushConsumer consumer(String group, String instance, String topic) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName(instance);
        consumer.setPollNameServerInterval(500);
        consumer.setHeartbeatBrokerInterval(500);
        consumer.setPersistConsumerOffsetInterval(200);
        consumer.setSuspendCurrentQueueTimeMillis(50);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        // Who leaves ends what it has in hand, and gives its queues up after that.
        consumer.setAwaitTerminationMillisWhenShutdown(5_000);
        consumer.subscribe(topic, "*");
        return consumer;
    }

    /** Messages that have an order, and two consumers of which one comes and goes. */
    private final class Rows {
        /** The newest message of each key that was answered, and the newest that was consumed. */
        private final AtomicIntegerArray sent = new AtomicIntegerArray(KEYS);
        private final AtomicIntegerArray newest = new AtomicIntegerArray(KEYS);
        /** Who is at work on a message of a key. */
        private final AtomicReferenceArray<String> hands = new AtomicReferenceArray<>(KEYS);
        private final AtomicReferenceArray<String> last = new AtomicReferenceArray<>(KEYS);
        private final Set<String> suspended = ConcurrentHashMap.newKeySet();
        private final AtomicInteger count = new AtomicInteger();
        private final AtomicInteger again = new AtomicInteger();
        private final AtomicInteger moves = new AtomicInteger();
        private final AtomicLong sentAt = new AtomicLong();
        private final AtomicLong consumedAt = new AtomicLong();

        private DefaultMQPushConsumer consume(String instance) throws Exception {
            DefaultMQPushConsumer consumer = consumer("clerks", instance, ROWS);
            consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
                for (MessageExt message : messages) {
                    if (!take(instance, body(message))) {
                        return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                    }
                }
                return ConsumeOrderlyStatus.SUCCESS;
            });
            consumer.start();
            return consumer;
        }

        private boolean take(String who, String body) {
            String[] words = body.split(" ");
            int key = Integer.parseInt(words[0]);
            int number = Integer.parseInt(words[1]);
            if (!hands.compareAndSet(key, null, who)) {
                wrong = "key " + key + " is given to " + who + " while " + hands.get(key) + " is at work on it";
                return true;
            }
            try {
                // Some have to come once more before those behind them do.
                if (number % 10 == 7 && suspended.add(body)) {
                    return false;
                }
                int before = newest.get(key);
                if (number > before + 1) {
                    wrong = "key " + key + ": " + number + " after " + before + ", to " + who;
                }
                // Time in which somebody else could be given it.
                pause(number % 50 == 0 ? 20 : 2);
                newest.set(key, Math.max(before, number));
                count.incrementAndGet();
                again.addAndGet(number <= before ? 1 : 0);
                String previous = last.getAndSet(key, who);
                moves.addAndGet(previous != null && !previous.equals(who) ? 1 : 0);
                consumedAt.set(now());
                return true;
            } finally {
                hands.set(key, null);
            }
        }

        /** Sends to all keys in turn. What may not be stored is sent again before what comes after it. */
        private void sends(DefaultMQProducer producer) {
            for (int number = 1; !isOver; number++) {
                for (int key = 0; key < KEYS; key++) {
                    for (boolean isStored = false; !isStored;) {
                        try {
                            isStored = producer.send(message(ROWS, key + " " + number),
                                (queues, some, of) -> queues.get((Integer) of % queues.size()), key, 1_000)
                                .getSendStatus() == SendStatus.SEND_OK;
                        } catch (Exception error) {
                            if (isOver) {
                                return;
                            }
                            pause(20);
                        }
                    }
                    sent.set(key, number);
                    sentAt.set(now());
                }
                pause(5);
            }
        }

        private boolean isDone() {
            for (int key = 0; key < KEYS; key++) {
                if (newest.get(key) < sent.get(key)) {
                    return false;
                }
            }
            return true;
        }
    }

    /** Transactions: what their producer has decided is fixed with its first word, as it would be in its database. */
    private final class Deals implements TransactionListener {
        private final Map<String, LocalTransactionState> decisions = new ConcurrentHashMap<>();
        private final Set<String> answered = ConcurrentHashMap.newKeySet();
        private final Map<String, Integer> asked = new ConcurrentHashMap<>();
        private final Map<String, Integer> seen = new ConcurrentHashMap<>();
        private final AtomicInteger sent = new AtomicInteger();
        private final AtomicInteger refused = new AtomicInteger();
        private final AtomicLong sentAt = new AtomicLong();
        private final AtomicLong seenAt = new AtomicLong();

        private LocalTransactionState decision(String body, LocalTransactionState otherwise) {
            LocalTransactionState before = decisions.putIfAbsent(body, otherwise);
            return before == null ? otherwise : before;
        }

        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object argument) {
            String body = new String(message.getBody(), StandardCharsets.UTF_8);
            boolean isBack = body.startsWith("back");
            LocalTransactionState decision =
                decision(body, isBack ? LocalTransactionState.ROLLBACK_MESSAGE : LocalTransactionState.COMMIT_MESSAGE);
            pause((Integer) argument);
            // Some do not say so, and are asked.
            return body.endsWith("late") ? LocalTransactionState.UNKNOW : decision;
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            String body = body(message);
            int count = asked.merge(body, 1, Integer::sum);
            if (body.endsWith("late") && count == 1) {
                return LocalTransactionState.UNKNOW;
            }
            // What nobody has begun is not to be: its producer was told that it is not stored.
            return decision(body, LocalTransactionState.ROLLBACK_MESSAGE);
        }

        private void sends(TransactionMQProducer producer, long seed) {
            Random random = new Random(seed);
            while (!isOver) {
                int number = sent.getAndIncrement();
                String body = (number % 3 == 0 ? "back-" : "commit-") + number + (number % 4 == 0 ? "-late" : "");
                try {
                    int pause = random.nextInt(5) == 0 ? random.nextInt(100) : 0;
                    SendStatus status = producer.sendMessageInTransaction(message(DEALS, body), pause).getSendStatus();
                    if (status == SendStatus.SEND_OK) {
                        answered.add(body);
                        sentAt.set(now());
                    }
                    pause(5);
                } catch (Exception error) {
                    refused.incrementAndGet();
                    pause(20);
                }
            }
        }

        private DefaultMQPushConsumer consume() throws Exception {
            DefaultMQPushConsumer consumer = consumer("witnesses", "witness", DEALS);
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                for (MessageExt message : messages) {
                    String body = body(message);
                    LocalTransactionState decision = decisions.get(body);
                    boolean isCommitted = (message.getSysFlag() & 0xc) == 0x8;
                    if (decision != LocalTransactionState.COMMIT_MESSAGE || !isCommitted) {
                        wrong = body + " is seen, of which its producer says " + decision + ": " + message;
                    }
                    seen.merge(body, 1, Integer::sum);
                    seenAt.set(now());
                }
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            return consumer;
        }

        /** What was answered, and is to be there. */
        private Set<String> committed() {
            Set<String> committed = new TreeSet<>(answered);
            committed.removeIf(body -> decisions.get(body) != LocalTransactionState.COMMIT_MESSAGE);
            return committed;
        }

        private Set<String> missing() {
            Set<String> missing = committed();
            missing.removeAll(seen.keySet());
            return missing;
        }

        /** What the topic has: what was committed, once each, and nothing else. */
        private void checkStored() throws Exception {
            Map<String, Integer> stored = stored(DEALS);
            Set<String> lost = committed();
            lost.removeAll(stored.keySet());
            check(lost.isEmpty(), "not stored: " + lost);
            stored.forEach((body, count) -> check(count == 1 && decisions.get(body) == LocalTransactionState.COMMIT_MESSAGE,
                body + " is stored " + count + " times, and was decided as " + decisions.get(body)));
        }
    }

    /** Messages of which each fifth one is given back, once or twice, to come again after a second. */
    private final class Errands {
        private final Set<String> stored = ConcurrentHashMap.newKeySet();
        private final Map<String, Integer> failed = new ConcurrentHashMap<>();
        private final Map<String, Long> failedAt = new ConcurrentHashMap<>();
        private final Map<String, Integer> done = new ConcurrentHashMap<>();
        private final List<Long> waits = java.util.Collections.synchronizedList(new ArrayList<>());
        private final AtomicInteger sent = new AtomicInteger();
        private final AtomicInteger refused = new AtomicInteger();
        private final AtomicLong sentAt = new AtomicLong();
        private final AtomicLong retriedAt = new AtomicLong();

        private void sends(DefaultMQProducer producer) {
            while (!isOver) {
                String body = String.valueOf(sent.getAndIncrement());
                try {
                    if (producer.send(message(ERRANDS, body), 1_000).getSendStatus() == SendStatus.SEND_OK) {
                        stored.add(body);
                        sentAt.set(now());
                    }
                    pause(5);
                } catch (Exception error) {
                    refused.incrementAndGet();
                    pause(20);
                }
            }
        }

        private DefaultMQPushConsumer consume() throws Exception {
            DefaultMQPushConsumer consumer = consumer(STUMBLERS, "stumbles", ERRANDS);
            consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
                String body = body(messages.get(0));
                int number = Integer.parseInt(body);
                int failures = number % 5 != 0 ? 0 : 1 + number / 5 % 2;
                Long before = failedAt.remove(body);
                if (before != null) {
                    waits.add(now() - before);
                    retriedAt.set(now());
                }
                if (!done.containsKey(body) && failed.getOrDefault(body, 0) < failures) {
                    failed.merge(body, 1, Integer::sum);
                    failedAt.put(body, now());
                    context.setDelayLevelWhenNextConsume(1);
                    return ConsumeConcurrentlyStatus.RECONSUME_LATER;
                }
                done.merge(body, 1, Integer::sum);
                return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
            });
            consumer.start();
            return consumer;
        }

        private Set<String> missing() {
            Set<String> missing = new HashSet<>(stored);
            missing.addAll(failed.keySet());
            missing.removeAll(done.keySet());
            return missing;
        }

        private void checkStored() throws Exception {
            String topics = command("topic", "list");
            check(topics.contains("%RETRY%" + STUMBLERS) && !topics.contains("%DLQ%"), "nothing was given up: " + topics);
        }

        private String waited() {
            List<Long> sorted = new ArrayList<>(waits);
            java.util.Collections.sort(sorted);
            int count = sorted.size();
            return count == 0 ? "none" : "after " + sorted.get(count / 2) + " ms, 99 of 100 after " + sorted.get(count * 99 / 100)
                + " ms, all after " + sorted.get(count - 1) + " ms";
        }
    }

    private static String some(Set<String> bodies) {
        return bodies.size() + " missing: " + bodies.stream().limit(5).toList();
    }

    private String standing() {
        return "rows " + rows.sent + " sent and " + rows.newest + " consumed; of deals " + some(deals.missing()) + "; of errands "
            + some(errands.missing());
    }

    /** Everything goes on after a moment. */
    private void awaitAll(long since) throws Exception {
        Map<String, AtomicLong> works = new TreeMap<>(Map.of("rows are sent", rows.sentAt, "rows are consumed", rows.consumedAt,
            "deals are sent", deals.sentAt, "deals are seen", deals.seenAt, "errands are sent", errands.sentAt,
            "errands come again", errands.retriedAt));
        for (Map.Entry<String, AtomicLong> work : works.entrySet()) {
            await(work.getKey(), () -> work.getValue().get() > since, this::standing);
        }
    }

    private void run() throws Exception {
        DefaultMQProducer sender = set(new DefaultMQProducer("senders"), "sends");
        TransactionMQProducer dealer = set(new TransactionMQProducer("dealers"), "deals");
        dealer.setTransactionListener(deals);
        sender.start();
        dealer.start();
        DefaultMQPushConsumer first = rows.consume("first");
        DefaultMQPushConsumer second = rows.consume("second");
        DefaultMQPushConsumer witness = deals.consume();
        DefaultMQPushConsumer stumbler = errands.consume();
        List<Thread> threads = new ArrayList<>();
        threads.add(new Thread(() -> rows.sends(sender)));
        for (long seed : new long[] {2 * SEED, 2 * SEED + 1}) {
            threads.add(new Thread(() -> deals.sends(dealer, seed)));
            threads.add(new Thread(() -> errands.sends(sender)));
        }
        threads.forEach(Thread::start);
        awaitAll(0);
        for (int round = 1; round <= ROUNDS; round++) {
            if (round % 4 == 2) {
                // Its queues change hands while the broker dies.
                second.shutdown();
                second = rows.consume("second");
            }
            pause(random.nextInt(2_000));
            Set<String> before = errands.missing();
            int undecided = deals.missing().size();
            broker.destroyForcibly().waitFor();
            start();
            long up = now();
            awaitAll(up);
            System.out.printf("round %d: killed with %d errands and %d deals on their way; all goes on after %d ms%n", round,
                before.size(), undecided, now() - up);
        }
        isOver = true;
        for (Thread thread : threads) {
            thread.join();
        }
        await("all is consumed", () -> rows.isDone() && deals.missing().isEmpty() && errands.missing().isEmpty(), this::standing);
        // Whoever is asked about what is left has answered by then.
        pause(3_000);
        check(wrong == null, wrong);
        deals.checkStored();
        errands.checkStored();
        System.out.printf("rows: %d consumed in order, %d of them again; a key went from one to another %d times%n", rows.count.get(),
            rows.again.get(), rows.moves.get());
        System.out.printf("deals: %d halves answered and %d refused; %d committed ones seen, %d of them again; %d were asked about%n",
            deals.answered.size(), deals.refused.get(), deals.seen.size(),
            deals.seen.values().stream().filter(count -> count > 1).count(), deals.asked.size());
        System.out.printf("errands: %d answered and %d refused; %d given back %d times, which came again %s; %d done more than once%n",
            errands.stored.size(), errands.refused.get(), errands.failed.size(),
            errands.failed.values().stream().mapToInt(Integer::intValue).sum(), errands.waited(),
            errands.done.values().stream().filter(count -> count > 1).count());
        System.out.printf("ok: %d kills; no order broken, nothing seen that was not committed, nothing lost%n", ROUNDS);
        for (DefaultMQPushConsumer consumer : List.of(first, second, witness, stumbler)) {
            consumer.shutdown();
        }
        sender.shutdown();
        dealer.shutdown();
    }
}
