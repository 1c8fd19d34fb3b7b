// The vendor's HTTP SDK for Go, unmodified, against the real broker: transactions are decided without an instance, where
// the SDK sends an empty `consumer`, and what was committed comes. Environment: TURBOPUMP (the binary), SHARDS.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	mq "github.com/aliyunmq/mq-http-go-sdk"
)

// The address in a line like `  HTTP listens on 127.0.0.1:8080  (no keys asked for)`.
func address(line string) string {
	return strings.Fields(strings.SplitN(line, "listens on ", 2)[1])[0]
}

func check(what string, err error) {
	if err != nil {
		panic(fmt.Sprintf("%s: %v", what, err))
	}
}

// A broker on free ports over this directory; its native and its HTTP address.
func start(directory string) (*exec.Cmd, string, string) {
	broker := exec.Command(os.Getenv("TURBOPUMP"), "serve", "--data", directory+"/data", "--listen", "127.0.0.1:0",
		"--http", "127.0.0.1:0", "--namesrv", "none", "--segment-bytes", "16MiB", "--shards", os.Getenv("SHARDS"))
	output, err := broker.StdoutPipe()
	check("pipe", err)
	check("start", broker.Start())
	native, http := "", ""
	for lines := bufio.NewScanner(output); lines.Scan() && lines.Text() != "ready"; {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "  HTTP"):
			http = address(line)
		case strings.HasPrefix(line, "  shard 0 "):
			native = address(line)
		}
	}
	return broker, native, http
}

func run() {
	directory, err := os.MkdirTemp("", "turbopump-go")
	check("directory", err)
	defer os.RemoveAll(directory)
	broker, native, http := start(directory)
	defer func() {
		_ = broker.Process.Kill()
		_ = broker.Wait()
	}()
	check("topic", exec.Command(os.Getenv("TURBOPUMP"), "topic", "create", "orders", "--server", native).Run())

	client := mq.NewAliyunMQClient("http://"+http, "id", "secret", "")
	producer := client.GetTransProducer("", "orders", "GID-producer")
	for _, body := range []string{"committed", "rolled back"} {
		half, err := producer.PublishMessage(mq.PublishMessageRequest{MessageBody: body, TransCheckImmunityTime: 10})
		check("publish", err)
		if body == "committed" {
			check("commit", producer.Commit(half.ReceiptHandle))
		} else {
			check("roll back", producer.Rollback(half.ReceiptHandle))
		}
	}
	consumer := client.GetConsumer("", "orders", "GID-consumer", "")
	responses, errors := make(chan mq.ConsumeMessageResponse), make(chan error)
	go consumer.ConsumeMessage(responses, errors, 3, 10)
	select {
	case response := <-responses:
		if len(response.Messages) != 1 || response.Messages[0].MessageBody != "committed" {
			panic(fmt.Sprintf("%+v", response.Messages))
		}
		check("acknowledge", consumer.AckMessage([]string{response.Messages[0].ReceiptHandle}))
	case err := <-errors:
		check("consume", err)
	case <-time.After(30 * time.Second):
		panic("no answer")
	}
}

func main() {
	run()
	fmt.Println("ok: transactions are decided and delivered")
	for _, what := range []string{"send", "pull", "transactions"} {
		fmt.Println("works:", what)
	}
}
