import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.command.MQAdminStartup;

/**
 * mqadmin, a command after the other in one process: starting Java for each takes longer than the commands do. A line of standard
 * input is a command, its arguments separated by tabs; what it prints is followed by a line with the one character of code 0.
 *
 * Four commands are not mqadmin's, and name a server as it does: `consume GROUP TOPIC TAGS` begins to consume, `leave GROUP` ends that,
 * `consumed GROUP` says how many messages have come; `send TOPIC TAG BROKER QUEUE BODY` sends, which mqadmin does once in a process.
 */
public class Admin {
    private static final Map<String, DefaultMQPushConsumer> CONSUMERS = new HashMap<>();
    private static final Map<String, AtomicInteger> CONSUMED = new HashMap<>();
    private static final Map<String, DefaultMQProducer> PRODUCERS = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            ByteArrayOutputStream said = new ByteArrayOutputStream();
            PrintStream printed = new PrintStream(said, true, StandardCharsets.UTF_8);
            System.setOut(printed);
            System.setErr(printed);
            carryOut(line.split("\t"));
            output.print(said.toString(StandardCharsets.UTF_8));
            output.print("\n\0\n");
            output.flush();
        }
    }

    private static void carryOut(String[] words) throws Exception {
        String server = words[words.length - 1];
        switch (words[0]) {
            case "consume":
                CONSUMERS.put(server + words[1], consumer(server, words[1], words[2], words[3]));
                break;
            case "leave":
                CONSUMERS.remove(server + words[1]).shutdown();
                break;
            case "consumed":
                System.out.println(CONSUMED.get(server + words[1]));
                break;
            case "send":
                send(server, words);
                break;
            default:
                MQAdminStartup.main(words);
        }
    }

    private static void send(String server, String[] words) throws Exception {
        DefaultMQProducer producer = PRODUCERS.get(server);
        if (producer == null) {
            producer = new DefaultMQProducer("senders");
            producer.setNamesrvAddr(server);
            producer.setInstanceName("sends-" + server.replaceAll("\\W", "-"));
            producer.start();
            PRODUCERS.put(server, producer);
        }
        Message message = new Message(words[1], words[2], words[5].getBytes(StandardCharsets.UTF_8));
        try {
            System.out.println(producer.send(message, new MessageQueue(words[1], words[3], Integer.parseInt(words[4]))));
        } catch (MQBrokerException | MQClientException refused) {
            System.out.println(refused.getMessage());
        }
    }

    private static DefaultMQPushConsumer consumer(String server, String group, String topic, String tags) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(server);
        consumer.setInstanceName(server.replaceAll("\\W", "-"));
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(200);
        consumer.subscribe(topic, tags);
        AtomicInteger count = new AtomicInteger();
        CONSUMED.put(server + group, count);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            count.addAndGet(messages.size());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return consumer;
    }
}
