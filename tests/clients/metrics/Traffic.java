import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * A little of everything that a broker of RocketMQ's counts: messages of every kind in, messages out, one that is given back until it is
 * a dead letter, transactions of every end. Prints `ready` once all of it has happened, and stays until its input ends.
 */
public class Traffic {
    public static void main(String[] arguments) throws Exception {
        try {
            run(arguments[0]);
        } catch (Exception error) {
            error.printStackTrace();
        }
        System.exit(0);
    }

    private static void run(String server) throws Exception {
        DefaultMQProducer producer = patient(new DefaultMQProducer("senders"), server);
        producer.start();
        send(producer);
        producer.send(message("ordered"), (queues, sent, key) -> queues.get(0), "key");
        Message delayed = message("delayed");
        delayed.setDelayTimeMs(1_500);
        producer.send(delayed);
        Message level = message("level");
        level.setDelayTimeLevel(1);
        producer.send(level);

        TransactionMQProducer transactions = new TransactionMQProducer("deciders");
        patient(transactions, server);
        transactions.setTransactionListener(new Decisions());
        transactions.start();
        for (LocalTransactionState state : LocalTransactionState.values()) {
            transactions.sendMessageInTransaction(message(state.name()), state);
        }

        CountDownLatch consumed = new CountDownLatch(4);
        DefaultMQPushConsumer consumer = consumer(server, "billing");
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> consumed.countDown());
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        CountDownLatch refused = new CountDownLatch(1);
        DefaultMQPushConsumer refusing = consumer(server, "refusing");
        refusing.setMaxReconsumeTimes(0);
        refusing.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            refused.countDown();
            return ConsumeConcurrentlyStatus.RECONSUME_LATER;
        });
        refusing.start();
        if (!consumed.await(120, TimeUnit.SECONDS) || !refused.await(120, TimeUnit.SECONDS)) {
            throw new IllegalStateException("not everything was consumed");
        }
        // What was given back becomes a dead letter a moment later.
        Thread.sleep(8_000);
        System.out.println("ready");
        System.in.read();
    }

    /** The first message: the broker may not have registered yet. */
    private static void send(DefaultMQProducer producer) throws Exception {
        for (int attempt = 0; ; attempt++) {
            try {
                producer.send(message("plain"));
                return;
            } catch (MQClientException | IllegalStateException error) {
                if (attempt == 60) {
                    throw error;
                }
                Thread.sleep(1_000);
            }
        }
    }

    /** On a busy machine everything takes its time. */
    private static DefaultMQProducer patient(DefaultMQProducer producer, String server) {
        producer.setNamesrvAddr(server);
        producer.setSendMsgTimeout(30_000);
        producer.setMqClientApiTimeout(30_000);
        return producer;
    }

    private static Message message(String body) {
        return new Message("sales", "TagA", body.getBytes(StandardCharsets.UTF_8));
    }

    private static DefaultMQPushConsumer consumer(String server, String group) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(server);
        consumer.setInstanceName(group);
        consumer.setMqClientApiTimeout(30_000);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("sales", "*");
        return consumer;
    }

    /** As the message says in its argument; asked again, a commit. */
    private static final class Decisions implements TransactionListener {
        @Override
        public LocalTransactionState executeLocalTransaction(Message message, Object state) {
            return (LocalTransactionState) state;
        }

        @Override
        public LocalTransactionState checkLocalTransaction(MessageExt message) {
            return LocalTransactionState.COMMIT_MESSAGE;
        }
    }
}
