'use strict';
// A broker on free ports over a directory of its own. Environment: TURBOPUMP (the binary), SHARDS, TLS_FILES (a directory
// with certificate.pem and key.pem; the certificate must be trusted through NODE_EXTRA_CA_CERTS).

const { execFileSync, spawn } = require('node:child_process');
const { once } = require('node:events');
const { mkdtempSync, rmSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { createInterface } = require('node:readline');

const { MQClient } = require('@aliyunmq/mq-http-sdk');

const BINARY = process.env.TURBOPUMP;
const SHARDS = process.env.SHARDS || '1';

class Broker {
  constructor(flags) {
    this.directory = mkdtempSync(join(tmpdir(), 'turbopump-node-'));
    this.flags = flags;
    this.http = '127.0.0.1:0';
    this.lease = '2s';
  }

  static async start(...flags) {
    const broker = new Broker(flags);
    await broker.start();
    return broker;
  }

  /** Starts the process; again on the same HTTP address after `kill` or `terminate`. */
  async start() {
    this.process = spawn(BINARY, [
      'serve', '--data', join(this.directory, 'data'), '--listen', '127.0.0.1:0', '--http', this.http, '--namesrv', 'none',
      '--shards', SHARDS, '--lease', this.lease, '--ordered-lease', '2s', ...this.flags,
    ], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.ended = once(this.process, 'exit');
    for await (const line of createInterface({ input: this.process.stdout })) {
      const address = /127\.0\.0\.1:\d+/.exec(line);
      if (/^ *HTTPS? listens/.test(line)) {
        this.http = address[0];
      } else if (/^ *shard 0\b/.test(line)) {
        this.native = address[0];
      } else if (line === 'ready') {
        return;
      }
    }
    throw new Error('the broker does not start');
  }

  client(key = 'key', secret = 'secret') {
    return new MQClient(`http://${this.http}`, key, secret);
  }

  /** For a broker with the flags of `TLS`; the port is all that the certificate does not name. */
  secureClient() {
    return new MQClient(`https://localhost:${this.http.split(':')[1]}`, 'key', 'secret');
  }

  topic(name) {
    this.command('topic', 'create', name);
  }

  instance(name) {
    this.command('instance', 'create', name);
  }

  command(...words) {
    execFileSync(BINARY, [...words, '--server', this.native], { stdio: ['ignore', 'ignore', 'inherit'] });
  }

  async end(signal) {
    this.process.kill(signal);
    await this.ended;
  }

  async stop() {
    await this.end('SIGTERM');
    rmSync(this.directory, { recursive: true });
  }
}

const TLS = ['certificate', 'key'].flatMap((file) => [`--http-${file}`, join(process.env.TLS_FILES, `${file}.pem`)]);

module.exports = { Broker, SHARDS, TLS };
