import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's consumers in order for Java, unmodified, against the real broker: the messages of each key come in their order, whoever
 * consumes them, while consumers come, leave and are killed, and the broker is killed. Environment: TURBOPUMP (the binary), SHARDS,
 * TURBOPUMP_KILL_ROUNDS (1).
 * With arguments it is the consumer that dies: NAMES GROUP TOPIC. The client's locks have to be set down with the broker's, see
 * run.sh.
 */
public class Orders {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final int ROUNDS = Integer.parseInt(System.getenv().getOrDefault("TURBOPUMP_KILL_ROUNDS", "1"));
    private static final int QUEUES = 8;
    private static final int KEYS = 16;
    private static final String TOPIC = "orders";
    private static final String GROUP = "clerks";
    private static final long PATIENCE_MS = 60_000;

    private final Path directory = Files.createTempDirectory("turbopump");
    private final int port = freePorts(10 * SHARDS);
    private final String names = "127.0.0.1:" + freePorts(1);
    private final DefaultMQProducer producer = new DefaultMQProducer("producers");
    private final List<Process> others = Collections.synchronizedList(new ArrayList<>());
    /** What was consumed, by whomever. */
    private final List<Event> events = Collections.synchronizedList(new ArrayList<>());
    /** The newest message of each key that was stored. */
    private final AtomicIntegerArray stored = new AtomicIntegerArray(KEYS);
    private volatile boolean isOver;
    private volatile String wrong;
    private Process broker;
    /** Times at which queues may have changed hands. */
    private int changes;

    /** A message was consumed: its key, its number within that, when, and by whom. */
    private static final class Event {
        private final int key;
        private final int number;
        private final long at;
        private final String who;

        private Event(String line, String who) {
            String[] words = line.split(" ");
            this.key = Integer.parseInt(words[0]);
            this.number = Integer.parseInt(words[1]);
            this.at = Long.parseLong(words[2]);
            this.who = who;
        }

        @Override
        public String toString() {
            return who + ":" + number;
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) {
            consumer(arguments[0], "dies", line -> {
                System.out.println(line);
                System.out.flush();
            }).start();
            Thread.sleep(600_000);
        }
        Orders suite = new Orders();
        int status = 0;
        try {
            suite.run();
        } catch (Throwable error) {
            error.printStackTrace();
            status = 1;
        }
        // The client's threads would keep the program alive.
        suite.broker.destroyForcibly().waitFor();
        for (Process process : suite.others) {
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

    private Orders() throws Exception {
        start();
        int exit = new ProcessBuilder(BINARY, "topic", "create", TOPIC, "--queues", String.valueOf(QUEUES), "--server",
            "127.0.0.1:" + port).redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor();
        check(exit == 0, "topic create");
        producer.setNamesrvAddr(names);
        producer.setPollNameServerInterval(500);
        producer.setHeartbeatBrokerInterval(500);
        producer.start();
    }

    /** Starts the broker, or starts it again where it was. */
    private void start() throws Exception {
        broker = new ProcessBuilder(
            BINARY, "serve", "--data", directory.resolve("data").toString(), "--listen", "127.0.0.1:" + port, "--http", "none",
            "--namesrv", names, "--shards", String.valueOf(SHARDS), "--segment-bytes", "16MiB", "--lock-lease", "3s",
            "--log-level", "warn").redirectError(ProcessBuilder.Redirect.INHERIT).start();
        BufferedReader lines = new BufferedReader(new InputStreamReader(broker.getInputStream(), StandardCharsets.UTF_8));
        String line = lines.readLine();
        while (line != null && !line.equals("ready")) {
            line = lines.readLine();
        }
        check(line != null, "the broker starts");
    }

    /** A consumer that says of each message "key number time" when it is done with it. */
    private static DefaultMQPushConsumer consumer(String names, String instance, Consumer<String> says) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(GROUP);
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName(instance + "-" + ProcessHandle.current().pid());
        consumer.setPollNameServerInterval(500);
        consumer.setHeartbeatBrokerInterval(500);
        consumer.setPersistConsumerOffsetInterval(200);
        consumer.setSuspendCurrentQueueTimeMillis(50);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(TOPIC, "*");
        Set<String> suspended = ConcurrentHashMap.newKeySet();
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            for (MessageExt message : messages) {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                // Some have to come once more before those behind them do.
                if (body.endsWith("7") && suspended.add(body)) {
                    return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
                }
                says.accept(body + " " + System.nanoTime());
            }
            return ConsumeOrderlyStatus.SUCCESS;
        });
        return consumer;
    }

    private DefaultMQPushConsumer consume(String instance) throws Exception {
        DefaultMQPushConsumer consumer = consumer(names, instance, line -> events.add(new Event(line, instance)));
        consumer.start();
        changes++;
        return consumer;
    }

    /** A consumer in a process of its own. */
    private Process dying() throws Exception {
        List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java"), "-cp",
            System.getProperty("java.class.path")));
        for (String name : List.of("rebalance.waitInterval", "rebalance.lockInterval", "rebalance.lockMaxLiveTime")) {
            String property = "rocketmq.client." + name;
            command.add("-D" + property + "=" + System.getProperty(property));
        }
        command.addAll(List.of("-Duser.home=" + System.getProperty("user.home"), "Orders", names));
        Process process = new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
        others.add(process);
        changes++;
        Thread reading = new Thread(() -> new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))
            .lines().filter(line -> line.matches("\\d+ \\d+ \\d+")).forEach(line -> events.add(new Event(line, "dies"))));
        reading.setDaemon(true);
        reading.start();
        return process;
    }

    /** Sends to all keys in turn. What may not be stored is sent again before what comes after it. */
    private void sends() {
        for (int number = 1; !isOver; number++) {
            for (int key = 0; key < KEYS; key++) {
                for (boolean isStored = false; !isStored;) {
                    try {
                        Message message = new Message(TOPIC, (key + " " + number).getBytes(StandardCharsets.UTF_8));
                        isStored = producer.send(message, (queues, some, of) -> queues.get((Integer) of % queues.size()), key, 1_000)
                            .getSendStatus() == SendStatus.SEND_OK;
                    } catch (Exception error) {
                        if (isOver) {
                            return;
                        }
                        pause(50);
                    }
                }
                stored.set(key, number);
            }
            pause(5);
        }
    }

    /** The newest message of each key that was consumed, by any of these. */
    private Map<Integer, Integer> newest(Set<String> who) {
        Map<Integer, Integer> newest = new TreeMap<>();
        synchronized (events) {
            events.stream().filter(event -> who.contains(event.who)).forEach(event -> newest.merge(event.key, event.number, Math::max));
        }
        return newest;
    }

    /** Waits until everything was consumed that was stored when this was called. */
    private void awaitAll(String what) throws Exception {
        Map<Integer, Integer> wanted = new TreeMap<>();
        for (int key = 0; key < KEYS; key++) {
            wanted.put(key, stored.get(key));
        }
        Supplier<Map<Integer, Integer>> found = () -> newest(Set.of("first", "second", "dies"));
        await(what + ": " + wanted, () -> {
            Map<Integer, Integer> newest = found.get();
            return wanted.entrySet().stream().allMatch(entry -> newest.getOrDefault(entry.getKey(), 0) >= entry.getValue());
        }, found::get);
    }

    /** Waits until each of these has consumed some more. */
    private void awaitEach(String... who) throws Exception {
        for (String one : who) {
            int before = newest(Set.of(one)).values().stream().mapToInt(Integer::intValue).sum();
            await(one + " consumes", () -> newest(Set.of(one)).values().stream().mapToInt(Integer::intValue).sum() > before + 20,
                () -> newest(Set.of(one)));
        }
    }

    /** Whether the messages of each key came in their order, as far as they came for the first time, and to one at a time. */
    private void checkOrder() {
        Map<Integer, Event> last = new HashMap<>();
        Map<Integer, Integer> newest = new HashMap<>();
        Map<Integer, Integer> moves = new HashMap<>();
        List<Event> all;
        synchronized (events) {
            all = new ArrayList<>(events);
        }
        all.sort(Comparator.comparingLong(event -> event.at));
        int again = 0;
        for (Event event : all) {
            int before = newest.getOrDefault(event.key, 0);
            check(event.number <= before + 1, "key " + event.key + ": " + event + " after " + before + ": "
                + all.stream().filter(one -> one.key == event.key && Math.abs(one.number - before) < 6).toList());
            again += event.number <= before ? 1 : 0;
            newest.merge(event.key, event.number, Math::max);
            Event previous = last.put(event.key, event);
            if (previous != null && !previous.who.equals(event.who)) {
                moves.merge(event.key, 1, Integer::sum);
            }
        }
        check(moves.values().stream().allMatch(count -> count <= 2 * changes), "keys go to and fro: " + moves + " in " + changes);
        System.out.printf("%d messages in order, %d of them again; a key went from one to another %d times at most%n", all.size(), again,
            moves.values().stream().mapToInt(Integer::intValue).max().orElse(0));
    }

    private interface Case {
        void run() throws Exception;
    }

    private void step(String name, Case body) throws Exception {
        long begun = now();
        body.run();
        checkOrder();
        System.out.printf("ok: %s (%d ms)%n", name, now() - begun);
    }

    private void run() throws Exception {
        Thread sending = new Thread(this::sends);
        sending.start();
        DefaultMQPushConsumer first = consume("first");
        awaitEach("first");
        DefaultMQPushConsumer second = consume("second");
        step("two consumers share the queues", () -> {
            awaitEach("first", "second");
            awaitAll("all is consumed");
        });
        for (int round = 0; round < ROUNDS; round++) {
            step("the broker is killed", () -> {
                pause(new Random().nextInt(1_000));
                broker.destroyForcibly().waitFor();
                start();
                awaitEach("first", "second");
                awaitAll("all is consumed");
            });
        }
        step("who leaves gives its queues up", () -> {
            second.shutdown();
            changes++;
            awaitAll("all is consumed");
        });
        Process dies = dying();
        step("who is killed has its queues for a lease", () -> {
            awaitEach("first", "dies");
            dies.destroyForcibly().waitFor();
            changes++;
            awaitAll("all is consumed");
        });
        isOver = true;
        sending.join();
        step("all that was stored is consumed", () -> awaitAll("all is consumed"));
        System.out.println("works: order");
        first.shutdown();
        producer.shutdown();
    }
}
