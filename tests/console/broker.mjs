// A broker of its own on free ports, and those who produce and consume over each protocol.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const BINARY = process.env.TURBOPUMP;
const HEART_BEAT = 34;

export class Broker {
  static async start(...flags) {
    const broker = new Broker();
    broker.directory = mkdtempSync(join(tmpdir(), "turbopump-console-"));
    broker.children = [];
    broker.sockets = [];
    broker.process = spawn(
      BINARY,
      [
        "serve", "--data", join(broker.directory, "data"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--namesrv",
        "127.0.0.1:0", "--admin", "127.0.0.1:0", "--segment-bytes", "16MiB", "--shards", "2", "--node", "shop", ...flags,
      ],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    broker.ended = once(broker.process, "exit");
    for await (const line of createInterface({ input: broker.process.stdout })) {
      const address = /127\.0\.0\.1:\d+/.exec(line)?.[0];
      if (/^ *HTTP listens/.test(line)) broker.http = address;
      else if (/^ *the admin/.test(line)) broker.admin = address;
      else if (/^ *shard 0\b/.test(line)) broker.native = address;
      else if (line === "ready") return broker;
    }
    throw new Error("the broker does not start");
  }

  /** Runs a command against it, and returns what it printed. */
  command(words, input) {
    const environment = { ...process.env, TURBOPUMP_SERVER: this.native, ...this.key };
    return execFileSync(BINARY, words, { env: environment, input, stdio: ["pipe", "pipe", "inherit"] }).toString();
  }

  /** Starts a command that goes on. */
  begin(words) {
    const environment = { ...process.env, TURBOPUMP_SERVER: this.native };
    const child = spawn(BINARY, words, { env: environment, stdio: ["pipe", "ignore", "inherit"] });
    // What it cannot write any more when the broker has gone.
    child.stdin.on("error", () => {});
    this.children.push(child);
    return child;
  }

  /** A native member of a group, for as long as the broker lives. */
  consume(topic, group) {
    return this.begin(["consume", topic, "--group", group, "--follow"]);
  }

  /** A message every few milliseconds. */
  produce(topic, line, interval_ms) {
    const child = this.begin(["produce", topic]);
    let number = 0;
    const timer = setInterval(() => child.stdin.write(`${line(number++)}\n`), interval_ms);
    child.on("exit", () => clearInterval(timer));
    return () => {
      clearInterval(timer);
      child.stdin.end();
    };
  }

  /** Receives over HTTP, and acknowledges nothing. */
  async receive(topic, group, wait_seconds = 0) {
    const target = `http://${this.http}/topics/${topic}/messages?consumer=${group}&numOfMessages=16`;
    const answer = await fetch(`${target}${wait_seconds ? `&waitseconds=${wait_seconds}` : ""}`);
    const text = await answer.text();
    return [...text.matchAll(/<ReceiptHandle>([^<]*)</g)].map((found) => found[1]);
  }

  async acknowledge(topic, group, handles) {
    const body = `<ReceiptHandles>${handles.map((handle) => `<ReceiptHandle>${handle}</ReceiptHandle>`).join("")}</ReceiptHandles>`;
    await fetch(`http://${this.http}/topics/${topic}/messages?consumer=${group}`, { method: "DELETE", body });
  }

  /** Somebody who receives over HTTP for as long as the broker lives. */
  keepReceiving(topic, group) {
    const again = async () => {
      try {
        const handles = await this.receive(topic, group, 5);
        if (handles.length > 0) await this.acknowledge(topic, group, handles);
      } catch {
        // The broker has gone.
        return;
      }
      setTimeout(again, 100);
    };
    void again();
  }

  /** RocketMQ's own client, as far as it says whom it consumes as. */
  async heartbeat(client, group, topic) {
    const [host, port] = this.native.split(":");
    const socket = connect(Number(port), host);
    socket.on("error", () => {});
    this.sockets.push(socket);
    await once(socket, "connect");
    const body = Buffer.from(
      JSON.stringify({
        clientID: client,
        consumerDataSet: [
          {
            groupName: group,
            consumeType: "CONSUME_PASSIVELY",
            messageModel: "CLUSTERING",
            consumeFromWhere: "CONSUME_FROM_LAST_OFFSET",
            subscriptionDataSet: [{ topic, subString: "fruit || vegetables", subVersion: 1, expressionType: "TAG" }],
          },
        ],
        producerDataSet: [],
      }),
    );
    const header = Buffer.from(JSON.stringify({ code: HEART_BEAT, language: "JAVA", version: 495, opaque: 1, flag: 0 }));
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32BE(4 + header.length + body.length, 0);
    lengths.writeUInt32BE(header.length, 4);
    const said = Buffer.concat([lengths, header, body]);
    const timer = setInterval(() => socket.write(said), 10_000);
    socket.on("close", () => clearInterval(timer));
    socket.write(said);
    await once(socket, "data");
  }

  async kill() {
    this.process.kill("SIGKILL");
    await this.ended;
  }

  async stop() {
    for (const child of this.children) child.kill("SIGKILL");
    for (const socket of this.sockets) socket.destroy();
    this.process.kill("SIGKILL");
    await this.ended;
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** A file of keys, for `--access-keys`. */
  static keys(text) {
    const path = join(mkdtempSync(join(tmpdir(), "turbopump-keys-")), "keys.toml");
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }
}
