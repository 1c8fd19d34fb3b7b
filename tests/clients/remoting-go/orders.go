package main

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

// Keys whose messages come in their order.
const keys = 16

// A message was consumed: its key, its number within that, when, and by whom.
type event struct {
	key, number int
	at          time.Time
	who         string
}

// What was stored and what was consumed, by whomever.
type orders struct {
	lock   sync.Mutex
	events []event
	stored [keys]atomic.Int64
	isOver atomic.Bool
	// Times at which queues may have changed hands.
	changes int
}

// A consumer in order that says of each message "key number" when it is done with it.
func inOrder(names, instance string, says func(string)) rocketmq.PushConsumer {
	made, err := rocketmq.NewPushConsumer(consumer.WithNsResolver(primitive.NewPassthroughResolver([]string{names})),
		consumer.WithGroupName("clerks"), consumer.WithInstance(instance), consumer.WithConsumerOrder(true),
		consumer.WithRebalanceLockInterval(500*time.Millisecond), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	check("consumer", err)
	var suspended sync.Map
	check("subscribe", made.Subscribe("orders", consumer.MessageSelector{}, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, message := range messages {
			// Some have to come once more before those behind them do.
			if _, again := suspended.LoadOrStore(string(message.Body), true); !again && strings.HasSuffix(string(message.Body), "77") {
				return consumer.SuspendCurrentQueueAMoment, nil
			}
			says(string(message.Body))
		}
		return consumer.ConsumeSuccess, nil
	}))
	check("start", made.Start())
	return made
}

func (o *orders) note(line, who string) {
	words := strings.Fields(line)
	key, err := strconv.Atoi(words[0])
	check("a key", err)
	number, err := strconv.Atoi(words[1])
	check("a number", err)
	o.lock.Lock()
	defer o.lock.Unlock()
	o.events = append(o.events, event{key, number, time.Now(), who})
}

func (o *orders) consume(names, instance string) rocketmq.PushConsumer {
	o.changes++
	return inOrder(names, instance, func(line string) { o.note(line, instance) })
}

// The consumer that dies, in a process of its own.
func (o *orders) dying(names string) *exec.Cmd {
	o.changes++
	process := exec.Command(os.Args[0], "dies", names)
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	check("pipe", err)
	check("start", process.Start())
	go func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			o.note(lines.Text(), "dies")
		}
	}()
	return process
}

// Sends to all keys in turn. What may not be stored is sent again before what comes after it.
func (o *orders) sends(sending rocketmq.Producer) {
	for number := 1; !o.isOver.Load(); number++ {
		for key := range keys {
			message := primitive.NewMessage("orders", fmt.Appendf(nil, "%d %d", key, number))
			message.WithShardingKey(fmt.Sprint("key-", key))
			for {
				ended, stop := context.WithTimeout(context.Background(), time.Second)
				result, err := sending.SendSync(ended, message)
				stop()
				if err == nil && result.Status == primitive.SendOK {
					break
				}
				if o.isOver.Load() {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			o.stored[key].Store(int64(number))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// The newest message of each key that was consumed, and how many were by one of them.
func (o *orders) consumed(who string) ([keys]int, int) {
	o.lock.Lock()
	defer o.lock.Unlock()
	newest, count := [keys]int{}, 0
	for _, one := range o.events {
		newest[one.key] = max(newest[one.key], one.number)
		if one.who == who {
			count++
		}
	}
	return newest, count
}

// Waits until everything was consumed that was stored when this was called.
func (o *orders) waitForAll() {
	wanted := [keys]int{}
	for key := range keys {
		wanted[key] = int(o.stored[key].Load())
	}
	waitFor("all is consumed", func() bool {
		newest, _ := o.consumed("")
		for key := range keys {
			if newest[key] < wanted[key] {
				return false
			}
		}
		return true
	})
}

// Waits until each of these has consumed some more.
func (o *orders) waitForEach(some ...string) {
	for _, who := range some {
		_, before := o.consumed(who)
		waitFor(who+" consumes", func() bool {
			_, count := o.consumed(who)
			return count > before+20
		})
	}
}

// Whether the messages of each key came in their order, as far as they came for the first time, and to one at a time.
func (o *orders) check() {
	o.lock.Lock()
	defer o.lock.Unlock()
	sort.SliceStable(o.events, func(one, other int) bool { return o.events[one].at.Before(o.events[other].at) })
	newest, moves, last := [keys]int{}, [keys]int{}, [keys]string{}
	for _, one := range o.events {
		if one.number > newest[one.key]+1 {
			panic(fmt.Sprintf("key %d: %s has %d after %d", one.key, one.who, one.number, newest[one.key]))
		}
		newest[one.key] = max(newest[one.key], one.number)
		if last[one.key] != one.who {
			moves[one.key]++
		}
		last[one.key] = one.who
	}
	for _, count := range moves {
		if count > 2*o.changes {
			panic(fmt.Sprint("keys go to and fro: ", moves))
		}
	}
}

// So many ports in a row that nobody listens on, and not of those that the system gives to whoever connects.
func freePorts(count int) int {
	for {
		port := 12_000 + 16*rand.IntN(1_000)
		taken, err := []net.Listener{}, error(nil)
		for next := port; next < port+count && err == nil; next++ {
			var listener net.Listener
			if listener, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", next)); err == nil {
				taken = append(taken, listener)
			}
		}
		for _, listener := range taken {
			_ = listener.Close()
		}
		if err == nil {
			return port
		}
	}
}

// Consumers in order, while they come, leave and are killed; with TURBOPUMP_KILL_ROUNDS the broker is killed as well, after which
// this client waits for its pulls for half a minute, whatever broker it is.
func (s *suite) inOrder() {
	directory, err := os.MkdirTemp("", "turbopump-go")
	check("directory", err)
	defer os.RemoveAll(directory)
	names := fmt.Sprint("127.0.0.1:", freePorts(1))
	flags := []string{"--listen", fmt.Sprint("127.0.0.1:", freePorts(10*s.shards)), "--namesrv", names, "--lock-lease", "3s"}
	broker, native, _ := start(directory, flags...)
	defer func() {
		_ = broker.Process.Kill()
		_ = broker.Wait()
	}()
	create := exec.Command(os.Getenv("TURBOPUMP"), "topic", "create", "orders", "--queues", "8", "--server", native)
	check("topic create", create.Run())
	sending, err := rocketmq.NewProducer(producer.WithNsResolver(primitive.NewPassthroughResolver([]string{names})),
		producer.WithGroupName("clerks"), producer.WithRetry(0), producer.WithInstanceName("sends"),
		producer.WithQueueSelector(producer.NewHashQueueSelector()))
	check("producer", err)
	check("start", sending.Start())
	o := &orders{}
	sent := make(chan bool)
	go func() {
		o.sends(sending)
		sent <- true
	}()
	first := o.consume(names, "first")
	o.waitForEach("first")
	second := o.consume(names, "second")
	o.waitForEach("first", "second")
	check("shutdown", second.Shutdown())
	o.changes++
	o.waitForAll()
	dies := o.dying(names)
	o.waitForEach("first", "dies")
	check("kill", dies.Process.Kill())
	_ = dies.Wait()
	o.changes++
	o.waitForAll()
	o.check()
	if os.Getenv("TURBOPUMP_KILL_ROUNDS") != "" {
		check("kill", broker.Process.Kill())
		_ = broker.Wait()
		broker, _, _ = start(directory, flags...)
		o.waitForAll()
	}
	o.isOver.Store(true)
	<-sent
	o.waitForAll()
	o.check()
	check("shutdown", first.Shutdown())
	check("shutdown", sending.Shutdown())
}
