import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageAccessor;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * RocketMQ's push consumer for Java, unmodified, against the real broker: consumers of a group divide its messages among
 * themselves, whoever comes, leaves or dies, the broker among them; those that broadcast get all of them. Environment: TURBOPUMP
 * (the binary), SHARDS. With arguments it is the consumer that dies: NAMES GROUP TOPIC.
 */
public class Consumers {
    private static final String BINARY = System.getenv("TURBOPUMP");
    private static final int SHARDS = Integer.parseInt(System.getenv().getOrDefault("SHARDS", "1"));
    private static final int QUEUES = 8;

    private final Path directory = Files.createTempDirectory("turbopump");
    private final int port = freePorts(10 * SHARDS);
    private final String names = "127.0.0.1:" + freePorts(1);
    private Process broker;
    private final DefaultMQProducer producer = new DefaultMQProducer("producers");
    private int sent;
    /** What consumers have failed at. */
    private final Set<String> retried = new TreeSet<>();

    public static void main(String[] arguments) throws Exception {
        if (arguments.length > 0) {
            Seen seen = new Seen();
            seen.prints = true;
            consumer(arguments[0], arguments[1], "dies", seen).subscribe(arguments[2], "*");
            seen.consumer.start();
            Thread.sleep(600_000);
        }
        Consumers suite = new Consumers();
        try {
            suite.run("two consumers divide the messages that their tags let through", suite::twoDivide);
            System.out.println("works: push clustering\nworks: filters tags");
            suite.run("who is left takes over from who leaves and who is killed", suite::takeOver);
            suite.run("those that broadcast get every message", suite::broadcasting);
            System.out.println("works: push broadcasting");
            suite.run("messages come at their time", suite::delayed);
            System.out.println("works: delay");
            suite.run("what a consumer fails at comes again, and ends among the dead letters", suite::retried);
            System.out.println("works: retry");
            suite.run("consumers go on when the broker has been killed", suite::brokerRestarts);
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

    private Consumers() throws Exception {
        start();
        producer.setNamesrvAddr(names);
        producer.setPollNameServerInterval(500);
        // What is sent a second time, because a busy machine's answer is late, would be there twice.
        producer.setSendMsgTimeout(60_000);
        producer.start();
    }

    /** Starts the broker, or starts it again where it was. */
    private void start() throws Exception {
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

    private void create(String topic) throws Exception {
        int exit = new ProcessBuilder(BINARY, "topic", "create", topic, "--queues", String.valueOf(QUEUES), "--server",
            "127.0.0.1:" + port).redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor();
        same(0, exit, "topic create");
    }

    /** A group as the command line shows it. */
    private String described(String group) {
        try {
            Process command = new ProcessBuilder(BINARY, "group", "describe", group, "-o", "json", "--server", "127.0.0.1:" + port)
                .start();
            return new String(command.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        } catch (java.io.IOException error) {
            throw new AssertionError(error);
        }
    }

    /** A client that leaves does not wait for an answer to its last commits: what comes after may come before them. */
    private void awaitCommitted(String group) throws Exception {
        await("all is committed", () -> described(group).contains("\"generation\":0,\"lag\":0,"), () -> described(group));
    }

    /** Sends messages and returns their bodies, those of all tags and those of tag `a` or `b`. */
    private Set<String> send(String topic, int count, boolean ofAnyTag) throws Exception {
        Set<String> bodies = new TreeSet<>();
        for (int number = 0; number < count; number++) {
            String tag = List.of("a", "b", "c").get(number % 3);
            String body = topic + "-" + sent++ + "-" + tag;
            Message message = new Message(topic, tag, "key-" + body, body.getBytes(StandardCharsets.UTF_8));
            message.putUserProperty("number", body);
            producer.send(message);
            if (ofAnyTag || !tag.equals("c")) {
                bodies.add(body);
            }
        }
        return bodies;
    }

    /** What a consumer was given. */
    private static final class Seen implements MessageListenerConcurrently {
        private final Map<String, Integer> bodies = new ConcurrentHashMap<>();
        /** The queue of each body. */
        private final Map<String, String> queues = new ConcurrentHashMap<>();
        private DefaultMQPushConsumer consumer;
        private boolean prints;
        private volatile String wrong;

        @Override
        public ConsumeConcurrentlyStatus consumeMessage(
            List<MessageExt> messages, org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext context) {
            for (MessageExt message : messages) {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                if (!body.equals(message.getUserProperty("number")) || !("key-" + body).equals(message.getKeys())
                    || !body.endsWith("-" + message.getTags()) || !body.startsWith(message.getTopic() + "-")) {
                    wrong = message.toString();
                }
                queues.put(body, message.getBrokerName() + ":" + message.getQueueId());
                bodies.merge(body, 1, Integer::sum);
                if (prints) {
                    System.out.println(body);
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        }

        private Set<String> queuesOf(Set<String> some) {
            Set<String> found = new TreeSet<>(queues.values());
            found.retainAll(some.stream().map(queues::get).filter(java.util.Objects::nonNull).toList());
            return found;
        }

        private void stop() {
            consumer.shutdown();
        }
    }

    private static DefaultMQPushConsumer consumer(String names, String group, String instance, Seen seen) {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(names);
        consumer.setInstanceName(group + "-" + instance + "-" + ProcessHandle.current().pid());
        consumer.setPollNameServerInterval(500);
        consumer.setHeartbeatBrokerInterval(500);
        consumer.setPersistConsumerOffsetInterval(200);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.registerMessageListener(seen);
        seen.consumer = consumer;
        return consumer;
    }

    private Seen consume(String group, String instance, String topic, String tags) throws Exception {
        Seen seen = new Seen();
        consumer(names, group, instance, seen).subscribe(topic, tags);
        seen.consumer.start();
        return seen;
    }

    private static Set<String> union(Seen... all) {
        Set<String> bodies = new TreeSet<>();
        for (Seen seen : all) {
            bodies.addAll(seen.bodies.keySet());
        }
        return bodies;
    }

    private static void awaitAll(Set<String> expected, Seen... all) throws Exception {
        await("all are consumed", () -> union(all).containsAll(expected), () -> {
            Set<String> missing = new TreeSet<>(expected);
            missing.removeAll(union(all));
            return "missing: " + missing;
        });
        for (Seen seen : all) {
            check(seen.wrong == null, "a message is not as it was sent: " + seen.wrong);
        }
        same(expected, union(all), "nothing else");
    }

    /** Waits until each of these has so many queues of the topic. */
    private static void awaitQueues(String topic, int each, Seen... all) throws Exception {
        for (Seen seen : all) {
            Supplier<Long> count = () -> seen.consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable()
                .keySet().stream().filter(queue -> queue.getTopic().equals(topic)).count();
            await("each has " + each + " queues", () -> count.get() == each, count::get);
        }
    }

    private static void checkOnce(Seen... all) {
        int count = 0;
        for (Seen seen : all) {
            count += seen.bodies.values().stream().mapToInt(Integer::intValue).sum();
        }
        same(union(all).size(), count, "each message once");
    }

    private void twoDivide() throws Exception {
        create("divided");
        // The group comes second: it loses nothing of a new topic.
        Set<String> expected = send("divided", 30, false);
        Seen first = consume("dividers", "1", "divided", "a || b");
        Seen second = consume("dividers", "2", "divided", "a || b");
        awaitAll(expected, first, second);
        awaitQueues("divided", QUEUES / 2, first, second);
        // What was sent before may come twice: a queue that changes hands is read from where its group has committed.
        Set<String> fresh = send("divided", 90, false);
        expected.addAll(fresh);
        awaitAll(expected, first, second);
        Set<String> ofFirst = first.queuesOf(fresh);
        Set<String> ofSecond = second.queuesOf(fresh);
        same(QUEUES / 2, ofFirst.size(), "queues of the first");
        same(QUEUES / 2, ofSecond.size(), "queues of the second");
        check(java.util.Collections.disjoint(ofFirst, ofSecond), "no queue is read by both, and each message by one");
        first.stop();
        second.stop();
    }

    private void takeOver() throws Exception {
        create("taken");
        Seen leaves = consume("takers", "leaves", "taken", "*");
        Seen stays = consume("takers", "stays", "taken", "*");
        awaitQueues("taken", QUEUES / 2, leaves, stays);
        Set<String> expected = send("taken", 60, true);
        awaitAll(expected, leaves, stays);
        awaitCommitted("takers");
        leaves.stop();
        expected.addAll(send("taken", 60, true));
        awaitAll(expected, leaves, stays);
        checkOnce(leaves, stays);
        awaitQueues("taken", QUEUES, stays);

        Process dies = new ProcessBuilder(ProcessHandle.current().info().command().orElse("java"), "-cp",
            System.getProperty("java.class.path"), "-Drocketmq.client.rebalance.waitInterval=500",
            "-Duser.home=" + System.getProperty("user.home"), "Consumers", names, "takers", "taken")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        Set<String> ofTheDead = ConcurrentHashMap.newKeySet();
        Thread reading = new Thread(() ->
            new BufferedReader(new InputStreamReader(dies.getInputStream(), StandardCharsets.UTF_8)).lines().forEach(ofTheDead::add));
        reading.start();
        awaitQueues("taken", QUEUES / 2, stays);
        Set<String> late = send("taken", 60, true);
        await("both consume", () -> ofTheDead.size() > 0, () -> ofTheDead);
        dies.destroyForcibly().waitFor();
        reading.join();
        late.addAll(send("taken", 30, true));
        await("all are consumed", () -> {
            Set<String> found = union(leaves, stays);
            found.addAll(ofTheDead);
            return found.containsAll(late);
        }, () -> stays.bodies.size());
        awaitQueues("taken", QUEUES, stays);
        stays.stop();
    }

    private void broadcasting() throws Exception {
        create("broadcast");
        List<Seen> all = new ArrayList<>();
        for (String instance : List.of("1", "2")) {
            Seen seen = new Seen();
            DefaultMQPushConsumer consumer = consumer(names, "listeners", instance, seen);
            // The type has another package in each release.
            consumer.setMessageModel(Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
            consumer.subscribe("broadcast", "*");
            consumer.start();
            all.add(seen);
        }
        for (Seen seen : all) {
            awaitQueues("broadcast", QUEUES, seen);
        }
        Set<String> expected = send("broadcast", 40, true);
        for (Seen seen : all) {
            awaitAll(expected, seen);
            checkOnce(seen);
            seen.stop();
        }
    }

    /** Delivered by level and by time. What it says at the end is the broker's lateness and the client's. */
    private void delayed() throws Exception {
        create("delayed");
        Map<String, Long> due = new ConcurrentHashMap<>();
        Map<String, Long> late = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = consumer(names, "late", "1", new Seen());
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt message : messages) {
                String body = new String(message.getBody(), StandardCharsets.UTF_8);
                late.put(body, System.currentTimeMillis() - due.getOrDefault(body, Long.MAX_VALUE));
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.subscribe("delayed", "*");
        consumer.start();
        long first = System.currentTimeMillis() + 2_000;
        for (int number = 0; number < 100; number++) {
            Message message = new Message("delayed", "a", ("time-" + number).getBytes(StandardCharsets.UTF_8));
            due.put("time-" + number, first + number * 10L);
            MessageAccessor.putProperty(message, "TIMER_DELIVER_MS", String.valueOf(first + number * 10L));
            producer.send(message);
        }
        for (int number = 0; number < 10; number++) {
            Message message = new Message("delayed", "a", ("level-" + number).getBytes(StandardCharsets.UTF_8));
            message.setDelayTimeLevel(1);
            due.put("level-" + number, System.currentTimeMillis() + 1_000);
            producer.send(message);
        }
        await("all are delivered", () -> late.size() == 110, late::size);
        check(late.values().stream().allMatch(by -> by >= 0), "none is early: " + late);
        List<Long> ofTimes = late.entrySet().stream().filter(one -> one.getKey().startsWith("time")).map(Map.Entry::getValue).sorted()
            .toList();
        System.out.println("late by at most " + ofTimes.get(98) + " ms (99 of 100), " + ofTimes.get(99) + " ms (all)");
        consumer.shutdown();
    }

    /** Fails at a message until it has been given it so often. */
    private static final class Failing implements MessageListenerConcurrently {
        private final int failures;
        /** How often each was delivered before, and when it was given. */
        private final Map<String, List<Integer>> before = new ConcurrentHashMap<>();
        private final Map<String, List<Long>> times = new ConcurrentHashMap<>();
        private volatile String wrong;

        private Failing(int failures) {
            this.failures = failures;
        }

        @Override
        public ConsumeConcurrentlyStatus consumeMessage(
            List<MessageExt> messages, org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyContext context) {
            MessageExt message = messages.get(0);
            String body = new String(message.getBody(), StandardCharsets.UTF_8);
            if (!message.getTopic().equals("retried") || !("key-" + body).equals(message.getKeys())
                || !body.endsWith("-" + message.getTags())) {
                wrong = message.toString();
            }
            times.computeIfAbsent(body, of -> new java.util.concurrent.CopyOnWriteArrayList<>()).add(System.currentTimeMillis());
            before.computeIfAbsent(body, of -> new java.util.concurrent.CopyOnWriteArrayList<>()).add(message.getReconsumeTimes());
            context.setDelayLevelWhenNextConsume(1);
            return message.getReconsumeTimes() < failures ? ConsumeConcurrentlyStatus.RECONSUME_LATER
                : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        }

        private boolean has(Set<String> bodies, List<Integer> expected) {
            return bodies.stream().allMatch(body -> expected.equals(before.get(body)));
        }

        /** The longest time until a message came again. */
        private long slowest() {
            return times.values().stream().flatMap(of -> java.util.stream.IntStream.range(1, of.size())
                .mapToObj(at -> of.get(at) - of.get(at - 1))).mapToLong(Long::longValue).max().orElse(0);
        }
    }

    private static DefaultMQPushConsumer failing(String names, String group, String topic, Failing listener) throws Exception {
        DefaultMQPushConsumer consumer = consumer(names, group, "1", new Seen());
        consumer.registerMessageListener(listener);
        consumer.setMaxReconsumeTimes(2);
        consumer.subscribe(topic, "*");
        consumer.start();
        return consumer;
    }

    private void retried() throws Exception {
        create("retried");
        Failing twice = new Failing(2);
        Failing always = new Failing(Integer.MAX_VALUE);
        List<DefaultMQPushConsumer> consumers = List.of(failing(names, "patient", "retried", twice),
            failing(names, "hopeless", "retried", always));
        Set<String> bodies = send("retried", 12, true);
        retried.addAll(bodies);
        for (Failing failing : List.of(twice, always)) {
            await("each is given three times", () -> failing.has(bodies, List.of(0, 1, 2)), () -> failing.before);
            check(failing.wrong == null, "it is as it was sent: " + failing.wrong);
            System.out.println("again after at most " + failing.slowest() + " ms");
        }
        Supplier<Object> dead = () -> new TreeSet<>(List.of(shown("consume", "%DLQ%hopeless").split("\n")));
        await("they are dead letters", () -> dead.get().equals(bodies), dead);
        check(twice.has(bodies, List.of(0, 1, 2)) && always.has(bodies, List.of(0, 1, 2)), "no more often");
        consumers.forEach(DefaultMQPushConsumer::shutdown);
    }

    private String shown(String... arguments) {
        try {
            List<String> command = new ArrayList<>(List.of(arguments));
            command.add(0, BINARY);
            command.addAll(List.of("--server", "127.0.0.1:" + port));
            Process process = new ProcessBuilder(command).start();
            return new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        } catch (java.io.IOException error) {
            throw new AssertionError(error);
        }
    }

    private long sentBack() {
        java.util.regex.Matcher counts = java.util.regex.Pattern.compile("\"messages_sent_back\":(\\d+)").matcher(
            shown("status", "-o", "json"));
        return counts.results().mapToLong(found -> Long.parseLong(found.group(1))).sum();
    }

    private void brokerRestarts() throws Exception {
        create("restarted");
        Seen before = consume("survivors", "1", "restarted", "*");
        awaitQueues("restarted", QUEUES, before);
        Set<String> expected = send("restarted", 60, true);
        awaitAll(expected, before);
        // Those that are there meanwhile are another suite's (Kills.java).
        before.stop();
        awaitCommitted("survivors");
        long counted = sentBack();
        Failing once = new Failing(1);
        DefaultMQPushConsumer returning = failing(names, "returning", "retried", once);
        await("all are given back", () -> sentBack() - counted == retried.size(), this::sentBack);
        returning.shutdown();
        broker.destroyForcibly().waitFor();
        start();
        Failing again = new Failing(0);
        DefaultMQPushConsumer returned = failing(names, "returning", "retried", again);
        Set<String> late = new TreeSet<>();
        for (int tries = 0; late.isEmpty(); tries++) {
            try {
                late = send("restarted", 60, true);
            } catch (Exception error) {
                check(tries < 50, "it sends again: " + error);
                Thread.sleep(100);
            }
        }
        Seen after = consume("survivors", "2", "restarted", "*");
        Set<String> all = late;
        await("all are consumed", () -> after.bodies.keySet().containsAll(all), () -> after.bodies.size());
        check(java.util.Collections.disjoint(after.bodies.keySet(), before.bodies.keySet()), "what was committed stays so");
        checkOnce(after);
        after.stop();
        await("what was given back before the kill comes again", () -> retried.stream().allMatch(body ->
            once.before.get(body).contains(1) || again.before.getOrDefault(body, List.of()).contains(1)), () -> again.before);
        returned.shutdown();
    }
}
