package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// A producer of transactions that decides by a message's body, and counts the questions about each.
type decider struct {
	lock  sync.Mutex
	asked map[string]int
}

func (d *decider) ExecuteLocalTransaction(message *primitive.Message) primitive.LocalTransactionState {
	switch body := string(message.Body); {
	case strings.HasPrefix(body, "commit"):
		return primitive.CommitMessageState
	case strings.HasPrefix(body, "back"):
		return primitive.RollbackMessageState
	default:
		return primitive.UnknowState
	}
}

func (d *decider) CheckLocalTransaction(message *primitive.MessageExt) primitive.LocalTransactionState {
	d.lock.Lock()
	defer d.lock.Unlock()
	body := string(message.Body)
	d.asked[body]++
	same("topic", "transactions", message.Topic)
	same("a property", strings.TrimPrefix(message.GetKeys(), "key"), message.GetProperty("number"))
	same("times asked", strconv.Itoa(d.asked[body]), message.GetProperty("TRANSACTION_CHECK_TIMES"))
	switch {
	case strings.HasPrefix(body, "late") && d.asked[body] < 3:
		return primitive.UnknowState
	case strings.HasSuffix(body, "back"):
		return primitive.RollbackMessageState
	default:
		return primitive.CommitMessageState
	}
}

// What is committed is seen once, by the producer's own decision or when it is asked.
func (s *suite) transactions() {
	// It takes every decision but a commit for an error.
	rlog.SetLogLevel("fatal")
	defer rlog.SetLogLevel("error")
	d := &decider{asked: map[string]int{}}
	sending, err := rocketmq.NewTransactionProducer(d, producer.WithNsResolver(primitive.NewPassthroughResolver([]string{s.names})),
		producer.WithGroupName("deciders"), producer.WithInstanceName("deciders"), producer.WithRetry(0), producer.WithSendMsgTimeout(patience))
	check("producer", err)
	check("start", sending.Start())
	expected, asked := map[string]int{}, map[string]int{}
	for number := range 20 {
		kind := []string{"commit", "back", "unknown", "unknown-back", "late"}[number%5]
		body := fmt.Sprintf("%s-%d", kind, number)
		if kind == "unknown-back" {
			body = fmt.Sprintf("unknown-%d-back", number)
		}
		result, err := sending.SendMessageInTransaction(context.Background(), message("transactions", body, number))
		check("send", err)
		same("status", primitive.SendOK, result.Status)
		same("transaction", result.MsgID, result.TransactionID)
		if !strings.HasSuffix(body, "back") && kind != "back" {
			expected[body] = number
		}
		if kind != "commit" && kind != "back" {
			asked[body] = 1
		}
		if kind == "late" {
			asked[body] = 3
		}
	}
	questions := func() string {
		d.lock.Lock()
		defer d.lock.Unlock()
		return fmt.Sprint(d.asked)
	}
	// It says who it is every half a minute only.
	waitFor("not all questions were asked", func() bool { return questions() == fmt.Sprint(asked) })
	stored := s.stored("transactions", len(expected))
	for body, number := range expected {
		stored[body].check(number)
	}
	time.Sleep(2400 * time.Millisecond)
	same("questions", fmt.Sprint(asked), questions())
	same("messages", len(expected), len(s.stored("transactions", len(expected))))
	check("shutdown", sending.Shutdown())
}
