package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
)

// A push consumer, and how often it was given what, and of which queues.
type pushed struct {
	lock     sync.Mutex
	bodies   map[string]int
	queues   map[string]bool
	consumer rocketmq.PushConsumer
}

func (s *suite) push(group, instance, topic, tags string, model consumer.MessageModel) *pushed {
	return s.pushBy(group, instance, topic, consumer.MessageSelector{Type: consumer.TAG, Expression: tags}, model)
}

func (s *suite) pushBy(group, instance, topic string, selector consumer.MessageSelector, model consumer.MessageModel) *pushed {
	made := &pushed{bodies: map[string]int{}, queues: map[string]bool{}}
	var err error
	made.consumer, err = rocketmq.NewPushConsumer(consumer.WithNsResolver(primitive.NewPassthroughResolver([]string{s.names})),
		consumer.WithGroupName(group), consumer.WithInstance(instance), consumer.WithConsumerModel(model),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	check("consumer", err)
	check("subscribe", made.consumer.Subscribe(topic, selector, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		made.lock.Lock()
		defer made.lock.Unlock()
		for _, message := range messages {
			same("a property", strings.TrimPrefix(message.GetKeys(), "key"), message.GetProperty("number"))
			made.bodies[string(message.Body)]++
			made.queues[fmt.Sprint(message.Queue.BrokerName, message.Queue.QueueId)] = true
		}
		return consumer.ConsumeSuccess, nil
	}))
	check("start", made.consumer.Start())
	return made
}

// What all of these were given, and how often in all.
func given(all ...*pushed) (map[string]bool, int) {
	bodies, count := map[string]bool{}, 0
	for _, one := range all {
		one.lock.Lock()
		for body, times := range one.bodies {
			bodies[body] = true
			count += times
		}
		one.lock.Unlock()
	}
	return bodies, count
}

func waitFor(what string, isSo func() bool) {
	for deadline := time.Now().Add(patience); !isSo(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic(what)
		}
	}
}

// Sends messages of three tags, and adds the bodies of those of the first two.
func (s *suite) sendTagged(topic string, count int, expected map[string]bool) {
	for range count {
		s.numbered++
		made := message(topic, fmt.Sprintf("%s-%d", topic, s.numbered), s.numbered)
		_, err := s.producer.SendSync(context.Background(), made)
		check("send", err)
		if s.numbered%3 < 2 {
			expected[string(made.Body)] = true
		}
	}
}

func (s *suite) create(topic string) {
	create := exec.Command(os.Getenv("TURBOPUMP"), "topic", "create", topic, "--queues", "8", "--server", s.server)
	check("topic create", create.Run())
}

// Two consumers of a group divide its messages, and who is left takes over from who leaves.
func (s *suite) divides() {
	s.create("divided")
	expected := map[string]bool{}
	s.sendTagged("divided", 30, expected)
	first := s.push("dividers", "first", "divided", "tag0 || tag1", consumer.Clustering)
	arrived := func(all ...*pushed) func() bool {
		return func() bool {
			bodies, _ := given(all...)
			return len(bodies) == len(expected)
		}
	}
	waitFor("a new group gets all of a new topic", arrived(first))
	second := s.push("dividers", "second", "divided", "tag0 || tag1", consumer.Clustering)
	waitFor("the second takes part", func() bool {
		s.sendTagged("divided", 3, expected)
		bodies, _ := given(second)
		return len(bodies) > 0
	})
	waitFor("all arrive", arrived(first, second))
	// While the queues change hands, both may be given a message, and a queue that has changed hands is read from where its group has
	// committed. Once they have, nothing comes twice.
	waitFor("each message comes once, and each queue is read by one", func() bool {
		for _, one := range []*pushed{first, second} {
			one.lock.Lock()
			one.queues = map[string]bool{}
			one.lock.Unlock()
		}
		settled := maps.Clone(expected)
		s.sendTagged("divided", 90, expected)
		waitFor("all arrive", arrived(first, second))
		first.lock.Lock()
		defer first.lock.Unlock()
		second.lock.Lock()
		defer second.lock.Unlock()
		for body := range expected {
			if !settled[body] && first.bodies[body]+second.bodies[body] != 1 {
				return false
			}
		}
		for queue := range first.queues {
			if second.queues[queue] {
				return false
			}
		}
		return len(first.queues) == 4 && len(second.queues) == 4
	})
	check("shutdown", first.consumer.Shutdown())
	s.sendTagged("divided", 30, expected)
	waitFor("who is left takes over", arrived(first, second))
	bodies, _ := given(first, second)
	for body := range bodies {
		same("what was asked for: "+body, true, expected[body])
	}
	check("shutdown", second.consumer.Shutdown())
}

// One that asks by an SQL92 expression gets what that is true of, also while it waits for it.
func (s *suite) asksByExpression() {
	s.create("expressed")
	expected := map[string]bool{}
	s.sendTagged("expressed", 9, map[string]bool{})
	from := s.numbered
	s.sendTagged("expressed", 30, expected)
	expression := fmt.Sprintf("number > %d AND TAGS IN ('tag0', 'tag1')", from)
	selector := consumer.MessageSelector{Type: consumer.SQL92, Expression: expression}
	one := s.pushBy("expressed", "one", "expressed", selector, consumer.Clustering)
	arrived := func() bool {
		bodies, _ := given(one)
		return len(bodies) >= len(expected)
	}
	waitFor("all that was there", arrived)
	s.sendTagged("expressed", 30, expected)
	waitFor("all that came", arrived)
	bodies, count := given(one)
	same("messages, once each", len(expected), count)
	for body := range bodies {
		same("what was asked for: "+body, true, expected[body])
	}
	check("shutdown", one.consumer.Shutdown())
}

// What a consumer fails at comes again: it is given to one that fails twice three times, and to one that always fails as well,
// and is a dead letter then.
func (s *suite) retries() {
	s.create("retried")
	var lock sync.Mutex
	before, times, slowest := map[string][]int32{}, map[string]time.Time{}, time.Duration(0)
	fails := func(group string, failures int32) rocketmq.PushConsumer {
		made, err := rocketmq.NewPushConsumer(consumer.WithNsResolver(primitive.NewPassthroughResolver([]string{s.names})),
			consumer.WithGroupName(group), consumer.WithInstance(group), consumer.WithMaxReconsumeTimes(2),
			consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
		check("consumer", err)
		check("subscribe", made.Subscribe("retried", consumer.MessageSelector{}, func(ctx context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
			lock.Lock()
			defer lock.Unlock()
			result := consumer.ConsumeSuccess
			for _, message := range messages {
				same("a property", strings.TrimPrefix(message.GetKeys(), "key"), message.GetProperty("number"))
				given := group + string(message.Body)
				if last, found := times[given]; found {
					slowest = max(slowest, time.Since(last))
				}
				before[given], times[given] = append(before[given], message.ReconsumeTimes), time.Now()
				if message.ReconsumeTimes < failures {
					result = consumer.ConsumeRetryLater
				}
			}
			if concurrent, found := primitive.GetConcurrentlyCtx(ctx); found {
				concurrent.DelayLevelWhenNextConsume = 1
			}
			return result, nil
		}))
		check("start", made.Start())
		return made
	}
	expected := map[string]bool{}
	s.sendTagged("retried", 6, expected)
	all := []rocketmq.PushConsumer{fails("patient", 2), fails("hopeless", 100)}
	waitFor("all come three times", func() bool {
		lock.Lock()
		defer lock.Unlock()
		for _, given := range before {
			if len(given) < 3 {
				return false
			}
		}
		return len(before) == 12
	})
	waitFor("they are dead letters", func() bool {
		dead, _ := exec.Command(os.Getenv("TURBOPUMP"), "consume", "%DLQ%hopeless", "--server", s.server).Output()
		return strings.Count(string(dead), "\n") == 6
	})
	for given, counts := range before {
		same("deliveries of "+given, "[0 1 2]", fmt.Sprint(counts))
	}
	fmt.Println("again after at most", slowest)
	for _, one := range all {
		check("shutdown", one.Shutdown())
	}
}

// Those that broadcast get every message.
func (s *suite) broadcasts() {
	s.create("broadcast")
	expected := map[string]bool{}
	s.sendTagged("broadcast", 30, expected)
	// Where they are they keep in files of their own, which others may have left.
	group := fmt.Sprintf("listeners-%d", os.Getpid())
	for _, instance := range []string{"one", "two"} {
		one := s.push(group, instance, "broadcast", "tag0 || tag1", consumer.BroadCasting)
		waitFor("all arrive", func() bool {
			bodies, _ := given(one)
			return len(bodies) == len(expected)
		})
		check("shutdown", one.consumer.Shutdown())
	}
}
