package main

import (
	"context"
	"os"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// Of a broker that asks for keys, who has one does what its rules allow, and nobody else anything.
func (s *suite) keys() {
	directory, err := os.MkdirTemp("", "turbopump-go")
	check("directory", err)
	defer os.RemoveAll(directory)
	file := directory + "/keys.toml"
	rules := "[[keys]]\nid = \"sends\"\nsecret = \"first secret\"\npublish = [\"guarded\"]\n" +
		"[[keys]]\nid = \"consumes\"\nsecret = \"second secret\"\nconsume = [{ topic = \"guarded\", group = \"readers\" }]\n"
	check("keys", os.WriteFile(file, []byte(rules), 0o600))
	broker, _, names := start(directory, "--listen", "127.0.0.1:0", "--namesrv", "127.0.0.1:0", "--access-keys", file)
	defer func() {
		_ = broker.Process.Kill()
		_ = broker.Wait()
	}()
	resolver := primitive.NewPassthroughResolver([]string{names})
	sends := func(key, secret string) error {
		sending, err := rocketmq.NewProducer(producer.WithNsResolver(resolver), producer.WithGroupName("guards"),
			producer.WithInstanceName(key+secret), producer.WithRetry(0), producer.WithSendMsgTimeout(patience),
			producer.WithCredentials(primitive.Credentials{AccessKey: key, SecretKey: secret}))
		check("producer", err)
		check("start", sending.Start())
		_, refused := sending.SendSync(context.Background(), message("guarded", "guarded", 1))
		check("shutdown", sending.Shutdown())
		return refused
	}
	check("send", sends("sends", "first secret"))
	same("whether another secret is refused", true, sends("sends", "another secret") != nil)
	same("whether who may only consume is refused", true, sends("consumes", "second secret") != nil)
	given := make(chan string, 10)
	reading, err := rocketmq.NewPushConsumer(consumer.WithNsResolver(resolver), consumer.WithGroupName("readers"),
		consumer.WithInstance("readers"), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset),
		consumer.WithCredentials(primitive.Credentials{AccessKey: "consumes", SecretKey: "second secret"}))
	check("consumer", err)
	check("subscribe", reading.Subscribe("guarded", consumer.MessageSelector{}, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, message := range messages {
			given <- string(message.Body)
		}
		return consumer.ConsumeSuccess, nil
	}))
	check("start", reading.Start())
	waitFor("what was sent is given to who may consume", func() bool { return len(given) > 0 })
	same("what is given", "guarded", <-given)
	check("shutdown", reading.Shutdown())
}
