// RocketMQ's own client for Go, unmodified, against the real broker: what it sends is what `turbopump consume` reads, with
// the places and ids that it was told, and what it pulls. Environment: TURBOPUMP (the binary), SHARDS, TURBOPUMP_KILL_ROUNDS
// (orders.go). With arguments it is a consumer that dies.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// A message as the command line shows it.
type stored struct {
	Queue      int               `json:"queue"`
	Offset     int64             `json:"offset"`
	ID         string            `json:"id"`
	UniqueID   string            `json:"unique_id"`
	Key        string            `json:"key"`
	Tag        string            `json:"tag"`
	Properties map[string]string `json:"properties"`
	Body       string            `json:"body"`
}

// How long something may take that a busy machine delays.
const patience = 60 * time.Second

type suite struct {
	server   string
	names    string
	node     string
	shards   int
	producer rocketmq.Producer
	// Counts the messages whose consumers are pushed to.
	numbered int
}

func check(what string, err error) {
	if err != nil {
		panic(fmt.Sprintf("%s: %v", what, err))
	}
}

func same(what string, expected, found any) {
	if expected != found {
		panic(fmt.Sprintf("%s: %v instead of %v", what, found, expected))
	}
}

// The address in a line like `  shard 0 listens on 127.0.0.1:10911`.
func address(line string) string {
	rest := line[strings.Index(line, "127.0.0.1:"):]
	return strings.Fields(rest)[0]
}

// A broker on free ports over this directory; its native address and that of its name server.
func start(directory string, flags ...string) (*exec.Cmd, string, string) {
	if len(flags) == 0 {
		flags = []string{"--listen", "127.0.0.1:0", "--namesrv", "127.0.0.1:0"}
	}
	flags = append([]string{"serve", "--data", directory + "/data", "--http", "none", "--segment-bytes", "16MiB", "--node", "suite",
		"--shards", os.Getenv("SHARDS"), "--transaction-immunity", "2s", "--transaction-check-interval", "1s"}, flags...)
	broker := exec.Command(os.Getenv("TURBOPUMP"), flags...)
	broker.Stderr = os.Stderr
	output, err := broker.StdoutPipe()
	check("pipe", err)
	check("start", broker.Start())
	native, names := "", ""
	for lines := bufio.NewScanner(output); lines.Scan() && lines.Text() != "ready"; {
		switch line := lines.Text(); {
		case strings.Contains(line, "name server") && strings.Contains(line, "127.0.0.1:"):
			names = address(line)
		case strings.HasPrefix(line, "  shard 0 "):
			native = address(line)
		}
	}
	return broker, native, names
}

// All messages of a topic by their bodies, once there are so many.
func (s *suite) stored(topic string, count int) map[string]stored {
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		output, err := exec.Command(os.Getenv("TURBOPUMP"), "consume", topic, "-o", "json", "--server", s.server).Output()
		lines := bytes.FieldsFunc(output, func(one rune) bool { return one == '\n' })
		// A one-way send that is under way may still have its topic to make.
		if (err != nil || len(lines) < count) && time.Now().Before(deadline) {
			continue
		}
		check("turbopump consume", err)
		byBody := map[string]stored{}
		for _, line := range lines {
			var message stored
			check("a line", json.Unmarshal(line, &message))
			byBody[message.Body] = message
		}
		same("messages of "+topic, count, len(lines))
		same("bodies of "+topic, count, len(byBody))
		return byBody
	}
}

// The broker that has a queue of the node.
func (s *suite) broker(queue int) string {
	return fmt.Sprintf("%s-%d", s.node, queue%s.shards)
}

func message(topic, body string, number int) *primitive.Message {
	made := primitive.NewMessage(topic, []byte(body)).WithTag(fmt.Sprintf("tag%d", number%3))
	made.WithKeys([]string{fmt.Sprintf("key%d", number)})
	made.WithProperty("number", strconv.Itoa(number))
	return made
}

func (m stored) check(number int) {
	same("key", fmt.Sprintf("key%d", number), m.Key)
	same("tag", fmt.Sprintf("tag%d", number%3), m.Tag)
	same("property", strconv.Itoa(number), m.Properties["number"])
}

// Whether a message is where its producer was told.
func (m stored) checkPlace(s *suite, result *primitive.SendResult) {
	broker := result.MessageQueue.BrokerName
	shard, err := strconv.Atoi(broker[strings.LastIndex(broker, "-")+1:])
	check("a broker's name", err)
	same("status", primitive.SendOK, result.Status)
	same("queue", result.MessageQueue.QueueId*s.shards+shard, m.Queue)
	same("offset", result.QueueOffset, m.Offset)
	same("unique id", result.MsgID, m.UniqueID)
	same("offset message id", result.OffsetMsgID, m.ID)
}

func (s *suite) synchronous() {
	results := map[int]*primitive.SendResult{}
	for number := range 40 {
		result, err := s.producer.SendSync(context.Background(), message("sync", fmt.Sprintf("sync-%d \u4e2d", number), number))
		check("send", err)
		results[number] = result
	}
	found, queues := s.stored("sync", 40), map[int]bool{}
	for number, result := range results {
		message := found[fmt.Sprintf("sync-%d \u4e2d", number)]
		message.check(number)
		message.checkPlace(s, result)
		queues[message.Queue] = true
	}
	same("queues, four of each shard, that are used", 4*s.shards, len(queues))
}

func (s *suite) asynchronous() {
	var left sync.WaitGroup
	results := make([]*primitive.SendResult, 200)
	left.Add(len(results))
	for number := range results {
		done := func(_ context.Context, result *primitive.SendResult, err error) {
			check("send", err)
			results[number] = result
			left.Done()
		}
		check("send", s.producer.SendAsync(context.Background(), done, message("async", fmt.Sprintf("async-%d", number), number)))
	}
	left.Wait()
	found := s.stored("async", len(results))
	for number, result := range results {
		found[fmt.Sprintf("async-%d", number)].checkPlace(s, result)
	}
}

func (s *suite) oneWay() {
	for number := range 100 {
		check("send", s.producer.SendOneWay(context.Background(), message("one-way", fmt.Sprintf("one-way-%d", number), number)))
	}
	found := s.stored("one-way", 100)
	for number := range 100 {
		found[fmt.Sprintf("one-way-%d", number)].check(number)
	}
}

func (s *suite) batches() {
	var batch []*primitive.Message
	for number := range 50 {
		batch = append(batch, message("batches", fmt.Sprintf("batch-%d", number), number))
	}
	result, err := s.producer.SendSync(context.Background(), batch...)
	check("send", err)
	found := s.stored("batches", len(batch))
	ids := strings.Split(result.OffsetMsgID, ",")
	same("ids", len(batch), len(ids))
	for number := range batch {
		message := found[fmt.Sprintf("batch-%d", number)]
		message.check(number)
		same("offset", result.QueueOffset+int64(number), message.Offset)
		same("id", ids[number], message.ID)
	}
}

func (s *suite) compressed() {
	body := strings.Repeat("0123456789abcdef", 512)
	result, err := s.producer.SendSync(context.Background(), message("large", body, 1))
	check("send", err)
	message := s.stored("large", 1)[body]
	message.check(1)
	message.checkPlace(s, result)
}

// The first of RocketMQ's levels is a second.
func (s *suite) delayed() {
	begun := time.Now()
	_, err := s.producer.SendSync(context.Background(), message("delayed", "delayed", 1).WithDelayTimeLevel(1))
	check("send", err)
	s.stored("delayed", 1)["delayed"].check(1)
	if took := time.Since(begun); took < time.Second {
		panic(fmt.Sprint("it is there after ", took))
	}
}

func (s *suite) refused() {
	delayed := message("sync", "delayed", 0)
	delayed.WithProperty("TIMER_DELAY_MS", "soon")
	_, err := s.producer.SendSync(context.Background(), delayed)
	if err == nil || !strings.Contains(err.Error(), "timer message illegal") {
		panic(fmt.Sprintf("a delay that is none is refused in words: %v", err))
	}
	s.stored("sync", 40)
}

// What a pull consumer reads is what is stored.
func (s *suite) pulls() {
	pulling, err := rocketmq.NewPullConsumer(consumer.WithNsResolver(primitive.NewPassthroughResolver([]string{s.names})),
		consumer.WithGroupName("pullers"))
	check("consumer", err)
	check("subscribe", pulling.Subscribe("sync", consumer.MessageSelector{}))
	check("start", pulling.Start())
	found := s.stored("sync", 40)
	last := map[int]int64{}
	for _, message := range found {
		last[message.Queue] = max(last[message.Queue], message.Offset+1)
	}
	count := 0
	for queue, end := range last {
		place := &primitive.MessageQueue{Topic: "sync", BrokerName: s.broker(queue), QueueId: queue / s.shards}
		for offset := int64(0); offset < end; {
			result, err := pulling.PullFrom(context.Background(), place, offset, 4)
			check("pull", err)
			same("status", primitive.PullFound, result.Status)
			for _, message := range result.GetMessageExts() {
				stored := found[string(message.Body)]
				number, err := strconv.Atoi(message.GetProperty("number"))
				check("a property", err)
				stored.check(number)
				same("keys", stored.Key, message.GetKeys())
				same("tag", stored.Tag, message.GetTags())
				same("unique id", stored.UniqueID, message.MsgId)
				same("id", stored.ID, message.OffsetMsgId)
				same("queue", stored.Queue, int(place.QueueId)*s.shards+queue%s.shards)
				same("offset", stored.Offset, message.QueueOffset)
				same("offset in turn", offset, message.QueueOffset)
				same("born at", "127.0.0.1", strings.Split(message.BornHost, ":")[0])
				offset++
				count++
			}
			same("where to go on", offset, result.NextBeginOffset)
		}
	}
	same("messages", 40, count)
	check("shutdown", pulling.Shutdown())
}

func run() {
	directory, err := os.MkdirTemp("", "turbopump-go")
	check("directory", err)
	defer os.RemoveAll(directory)
	broker, native, names := start(directory)
	defer func() {
		_ = broker.Process.Kill()
		_ = broker.Wait()
	}()
	shards, err := strconv.Atoi(os.Getenv("SHARDS"))
	check("SHARDS", err)
	sending, err := rocketmq.NewProducer(producer.WithNsResolver(primitive.NewPassthroughResolver([]string{names})),
		producer.WithGroupName("producers"), producer.WithRetry(0), producer.WithSendMsgTimeout(patience))
	check("producer", err)
	check("start", sending.Start())
	s := &suite{server: native, names: names, node: "suite", shards: shards, producer: sending}
	// What a case shows to work of the client is in the table that run.sh makes.
	cases := []struct {
		name  string
		run   func()
		works string
	}{
		{"synchronous sends arrive with everything they have", s.synchronous, "send"},
		{"asynchronous sends are answered each", s.asynchronous, ""},
		{"one-way sends arrive", s.oneWay, ""},
		{"batches are the messages they are made of", s.batches, ""},
		{"compressed bodies are readable", s.compressed, ""},
		{"a message comes at its time", s.delayed, "delay"},
		{"refusals are told in words", s.refused, ""},
		{"a pull consumer reads what is stored", s.pulls, "pull queue by queue"},
		{"two push consumers divide a group's messages that their tags let through", s.divides, "push clustering\nworks: filters tags"},
		{"a push consumer asks by an expression", s.asksByExpression, "filters SQL92"},
		{"those that broadcast get every message", s.broadcasts, "push broadcasting"},
		{"what is committed is seen once, decided at once or when it is asked", s.transactions, "transactions"},
		{"what a consumer fails at comes again, and ends among the dead letters", s.retries, "retry"},
		{"messages of each key come in their order", s.inOrder, "order"},
		{"who has a key may do what its rules allow", s.keys, "keys"},
	}
	for _, one := range cases {
		begun := time.Now()
		one.run()
		fmt.Printf("ok: %s (%d ms)\n", one.name, time.Since(begun).Milliseconds())
		if one.works != "" {
			fmt.Println("works:", one.works)
		}
	}
	check("shutdown", sending.Shutdown())
}

func main() {
	rlog.SetLogLevel("error")
	if len(os.Args) > 2 {
		inOrder(os.Args[2], os.Args[1], func(line string) { fmt.Println(line) })
		time.Sleep(10 * time.Minute)
	}
	// Panics run what was deferred: nothing is left behind.
	run()
}
