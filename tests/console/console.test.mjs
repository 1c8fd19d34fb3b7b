// The console as a person meets it. One broker for all of it; what each test changes, later ones do not mind.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { Broker } from "./broker.mjs";

const PICTURES = process.env.PICTURES;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** A text of a peer that would be more than text in a careless page. */
const HOSTILE = '<img src=x onerror="document.title=1"><script>alert(1)</script>';

let broker;
let browser;
let stopProducing;

before(async () => {
  const flags = ["--admin-writable", "--deliveries", "1", "--lease", "1s"];
  [broker, browser] = await Promise.all([
    Broker.start(...flags),
    chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] }),
  ]);
  broker.command(["topic", "create", "orders", "--queues", "4"]);
  broker.command(["topic", "create", "payments", "--queues", "2", "--retention", "72h"]);
  broker.command(["topic", "create", "audit-log-of-everything-that-anybody-has-done", "--queues", "8"]);
  // Dead letters, and a group that is behind: one delivery each, whose lease ends without an acknowledgement.
  for (const number of [1, 2, 3]) {
    broker.command(["message", "publish", "payments", JSON.stringify({ payment: number, amount: 12345678901234567890n.toString() }), "--tag", "card", "--key", `p-${number}`]);
  }
  let received = 0;
  while (received < 3) received += (await broker.receive("payments", "ledger", 1)).length;
  const lines = (count, line) => Array.from({ length: count }, (_, number) => `${line(number)}\n`).join("");
  broker.command(["produce", "audit-log-of-everything-that-anybody-has-done"], lines(2_000, (number) => `entry ${number}`));
  broker.command(["message", "publish", "orders", '{"order":4711,"total":12345678901234567890,"items":["apple","pear"]}', "--tag", "fruit", "--key", "4711"]);
  broker.command(["message", "publish", "orders", HOSTILE, "--tag", "fruit", "--key", "hostile", "--property", `note=${HOSTILE}`]);
  broker.command(["consume", "orders", "--group", "forgotten", "--count", "1"]);
  broker.consume("orders", "billing");
  await broker.heartbeat("10.0.0.7@kitchen", "kitchen", "orders");
  broker.keepReceiving("orders", "packing");
  // Until they are dead letters.
  for (let tries = 0; tries < 40; tries += 1) {
    await broker.receive("payments", "ledger", 1);
    if (broker.command(["group", "describe", "ledger", "-o", "json"]).includes('"dead_letters":3')) break;
  }
  stopProducing = broker.produce("orders", (number) => `order ${number}: three apples`, 4);
});

after(async () => {
  await browser?.close();
  await broker?.stop();
});

/** A page that fails the test for what it complains of, and for asking another host. */
async function open(options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1600, height: 1000 },
    colorScheme: "light",
    reducedMotion: "reduce",
    locale: "en-GB",
    timezoneId: "UTC",
    ...options,
  });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
  page.on("console", (line) => {
    if (["error", "warning"].includes(line.type()) && !/Failed to load resource/.test(line.text())) wrong.push(line.text());
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.host !== broker.admin && url.protocol.startsWith("http")) wrong.push(`asks ${url.host}`);
  });
  page.setDefaultTimeout(10_000);
  const go = async (hash) => {
    await page.goto(`http://${broker.admin}/#/${hash}`);
    await page.locator("main").waitFor();
  };
  const close = async () => {
    await context.close();
    assert.deepEqual(wrong, []);
  };
  return { page, go, close };
}

/** Nothing is wider than the window, and nothing that axe knows of keeps anybody out. */
async function inspect(page, what) {
  const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide <= room, `${what} is ${wide} wide in ${room}`);
  await page.evaluate(AXE);
  const found = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  const told = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
  assert.deepEqual(told, [], what);
}

const PLACES = [
  ["overview", "", "Busiest topics"],
  ["topics", "topics", "audit-log-of"],
  ["topic", "topics/orders", "kitchen"],
  ["groups", "groups", "forgotten"],
  ["group-native", "groups/billing", "native"],
  ["group-http", "groups/packing", "HTTP"],
  ["group-rocketmq", "groups/kitchen", "10.0.0.7@kitchen"],
  ["messages", "messages?topic=orders&to=2100-01-01T00:00:00", "Older ones"],
  ["dead-letters", "dead-letters", "ledger"],
  ["dead-letters-of-group", "dead-letters?group=ledger", "card"],
  ["latency", "latency?topic=orders", "native produce"],
  ["latency-slow", "latency?view=slow", "flush"],
  ["latency-all", "latency?view=all", "flush"],
];

for (const [width, height] of [[360, 740], [1600, 1000]]) {
  for (const colorScheme of ["light", "dark"]) {
    test(`every page at ${width}, ${colorScheme}`, async () => {
      const { page, go, close } = await open({ viewport: { width, height }, colorScheme, isMobile: width < 600, hasTouch: width < 600 });
      for (const [name, hash, text] of PLACES) {
        await go(hash);
        await page.locator("main").getByText(text, { exact: false }).first().waitFor();
        // A second look, so that there are rates.
        if (["overview", "topics", "topic"].includes(name)) await page.waitForTimeout(name === "overview" ? 4_500 : 2_300);
        await inspect(page, `${name} at ${width}, ${colorScheme}`);
        await page.screenshot({ path: join(PICTURES, `${name}-${width}-${colorScheme}.png`), fullPage: width < 600 });
      }
      await go("messages?topic=orders&key=4711&by=key");
      await page.getByRole("table", { name: "Messages" }).getByRole("button").first().click();
      await page.getByRole("dialog").getByText('"order": 4711').waitFor();
      await inspect(page, `message at ${width}, ${colorScheme}`);
      await page.screenshot({ path: join(PICTURES, `message-${width}-${colorScheme}.png`) });
      await close();
    });
  }
}

test("figures are live", async () => {
  const { page, go, close } = await open();
  await go("topics/orders");
  const ever = async () => page.getByText(/ever stored/).textContent();
  const first = await ever();
  await page.waitForFunction((first) => !document.body.textContent.includes(first), first);
  await go("");
  await page.locator(".tile .value").first().getByText(/^[1-9]/).waitFor();
  await close();
});

test("where the time goes is measured while somebody looks, by keyboard alone", async () => {
  const { page, go, close } = await open();
  let asked = 0;
  page.on("request", (request) => {
    if (request.url().includes("/api/latency?")) asked += 1;
  });
  await go("latency");
  await page.getByText("native produce").first().waitFor();
  assert.equal(await page.getByLabel("Topic").inputValue(), "orders", "the busiest one");
  const stages = page.getByRole("table", { name: "Stages of native produce" });
  assert.match(await stages.textContent(), /flush.*(ns|\u00b5s|ms)/);
  await page.getByRole("img", { name: /^native produce, latency by percentile: half within/ }).waitFor();
  const first = await stages.textContent();
  await page.waitForFunction((first) => document.querySelector("main table")?.textContent !== first, first);
  await page.locator("main").focus();
  await tabTo(page, "Pause");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Go on", pressed: true }).waitFor();
  const paused = [await stages.textContent(), asked];
  await page.waitForTimeout(3_000);
  assert.deepEqual([await stages.textContent(), asked], paused, "what is shown stays, and nothing is asked");
  await page.keyboard.press("Enter");
  await page.waitForFunction((first) => document.querySelector("main table")?.textContent !== first, paused[0]);
  await page.locator("main").focus();
  await tabTo(page, "Requests now");
  await page.keyboard.press("ArrowRight");
  await page.getByRole("table", { name: "Slowest requests" }).waitFor();
  const left = asked;
  await page.waitForTimeout(3_000);
  assert.equal(asked, left, "nobody looks any more");
  await page.getByLabel("Topic").selectOption("orders");
  await page.getByRole("cell", { name: "orders" }).first().waitFor();
  await page.getByRole("button", { name: "Answered" }).click();
  await page.getByLabel("Topic").selectOption("audit-log-of-everything-that-anybody-has-done");
  await go("latency?topic=audit-log-of-everything-that-anybody-has-done");
  await page.getByText(/No request about audit-log/).waitFor();
  await close();
});

test("the picture of the README", async () => {
  const { page, go, close } = await open({ viewport: { width: 1280, height: 880 } });
  await go("");
  await page.getByText("Busiest topics").waitFor();
  // Until the curve has come to the other side, where it is the picture that is wanted.
  await page.waitForTimeout(process.env.PICTURE ? 62_000 : 5_000);
  await page.screenshot({ path: join(PICTURES, "readme.png") });
  await close();
});

test("a peer's words are text", async () => {
  const { page, go, close } = await open();
  await go("messages?topic=orders&key=hostile&by=key");
  const row = page.getByRole("table", { name: "Messages" });
  await row.getByText("<img src=x").first().waitFor();
  await row.getByRole("button").first().click();
  const dialog = page.getByRole("dialog");
  await dialog.getByRole("definition").filter({ hasText: "<img src=x" }).first().waitFor();
  assert.equal(await page.locator("img[src=x], main script").count(), 0);
  assert.match(await page.title(), /turbopump/);
  await close();
});

test("a body is shown as text, as JSON with all of its digits, and as hex", async () => {
  const { page, go, close } = await open();
  await go("messages?topic=orders&key=4711&by=key");
  await page.getByRole("table", { name: "Messages" }).getByRole("button").first().click();
  const body = page.getByLabel("Body of the message");
  assert.match(await body.textContent(), /"total": 12345678901234567890,\n/);
  await page.getByRole("dialog").getByText("Text", { exact: true }).click();
  assert.match(await body.textContent(), /^\{"order":4711,/);
  await page.getByRole("dialog").getByText("Hex", { exact: true }).click();
  assert.match(await body.textContent(), /^00000000 {2}7b 22 6f 72 64 65 72 22 {2}3a .*\{"order":4711,"t/);
  await close();
});

/** Presses Tab until what has the focus is of this name. */
async function tabTo(page, name, most = 60) {
  for (let presses = 0; presses < most; presses += 1) {
    await page.keyboard.press("Tab");
    const found = await page.evaluate(() => {
      const at = document.activeElement;
      const label = at?.labels?.[0]?.textContent ?? "";
      return `${at?.getAttribute("aria-label") ?? ""}|${at?.textContent ?? ""}|${label}`;
    });
    if (found.split("|").some((one) => one.trim().startsWith(name))) return;
  }
  assert.fail(`no way to ${name} by Tab`);
}

test("a message is published, found and looked at by keyboard alone", async () => {
  const { page, go, close } = await open();
  await go("");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main", "the way past what is on every page");
  await go("topics");
  await page.getByRole("link", { name: "payments" }).waitFor();
  await tabTo(page, "Filter by name");
  await page.keyboard.type("paym");
  await page.getByRole("link", { name: "orders" }).waitFor({ state: "detached" });
  await tabTo(page, "payments");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "payments" }).waitFor();
  await page.getByRole("button", { name: "Publish a test message" }).waitFor();
  await tabTo(page, "Publish a test message");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  await tabTo(page, "Body");
  await page.keyboard.type("typed by hand");
  await tabTo(page, "Tag");
  await page.keyboard.type("hand");
  await tabTo(page, "Keys");
  await page.keyboard.type("by-hand");
  await page.keyboard.press("Enter");
  await page.getByText(/^Stored, durable/).waitFor();
  await inspect(page, "the dialog to publish");
  await page.screenshot({ path: join(PICTURES, "publish-1600-light.png") });
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.match(await page.evaluate(() => document.activeElement?.textContent ?? ""), /Publish a test message/);
  await go("messages?by=key&topic=payments&key=by-hand");
  await page.getByText("typed by hand").waitFor();
  await page.locator("main").focus();
  await tabTo(page, `${new Date().getFullYear()}-`);
  await page.keyboard.press("Enter");
  await page.getByLabel("Body of the message").getByText("typed by hand").waitFor();
  await tabTo(page, "Text");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await page.getByLabel("Body of the message").getByText("00000000  74 79 70 65").waitFor();
  await close();
});

test("a group is reset after a look at what that does, by keyboard alone", async () => {
  const { page, go, close } = await open();
  await go("groups/forgotten");
  await page.getByRole("button", { name: "Reset its place" }).waitFor();
  await tabTo(page, "Reset its place");
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.waitFor();
  await tabTo(page, "after the last");
  await page.keyboard.press("ArrowRight");
  await tabTo(page, "Preview");
  await page.keyboard.press("Enter");
  await dialog.getByText(/comes? again|nothing moves/).waitFor();
  await inspect(page, "the dialog to reset");
  await page.screenshot({ path: join(PICTURES, "reset-1600-light.png") });
  await tabTo(page, "Reset");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  await page.getByText("goes on from its new place").waitFor();
  const described = JSON.parse(broker.command(["group", "describe", "forgotten", "-o", "json"]));
  assert.ok(described.queues.every((queue) => queue.committed === 0), JSON.stringify(described.queues));
  await close();
});

test("dead letters are sent again", async () => {
  const { page, go, close } = await open();
  await go("dead-letters?group=ledger");
  await page.getByRole("button", { name: "Send again" }).first().click();
  await page.getByRole("dialog").getByRole("button", { name: "Send", exact: true }).click();
  await page.getByText("1 message sent again").waitFor();
  await page.getByText("sent again", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Send all 2 again" }).click();
  await inspect(page, "the dialog to send again");
  await page.screenshot({ path: join(PICTURES, "redrive-1600-light.png") });
  await page.getByRole("dialog").getByRole("button", { name: "Send 2" }).click();
  await page.getByText("2 messages sent again").waitFor();
  const found = JSON.parse(broker.command(["message", "find", "payments", "--key", "p-2", "-o", "json"]));
  assert.equal(found.messages.length, 2, "as it was sent, and again");
  await close();
});

test("a key shows what it may, and a wrong one nothing", async () => {
  const keys = Broker.keys(
    '[[keys]]\nid = "root"\nsecret = "r"\nadmin = true\n[[keys]]\nid = "shop"\nsecret = "s"\nconsume = [{ topic = "orders", group = "*" }]\n',
  );
  const usual = broker;
  const guarded = await Broker.start("--access-keys", keys);
  guarded.key = { TURBOPUMP_ACCESS_KEY: "root", TURBOPUMP_SECRET_KEY: "r" };
  try {
    broker = guarded;
    guarded.command(["topic", "create", "orders"]);
    guarded.command(["message", "publish", "orders", "for those with a key"]);
    const shop = await open({ httpCredentials: { username: "shop", password: "s" } });
    await shop.go("messages?topic=orders");
    await shop.page.getByText("for those with a key").waitFor();
    await shop.page.getByText("read only").waitFor();
    await shop.go("groups");
    await shop.page.getByText(/`shop` may not/).first().waitFor();
    await shop.close();
    const root = await open({ httpCredentials: { username: "root", password: "r" } });
    await root.go("topics/orders");
    await root.page.getByRole("button", { name: "Publish a test message" }).waitFor();
    await root.close();
    const stranger = await open({ httpCredentials: { username: "root", password: "guessed" } });
    await stranger.go("");
    await stranger.page.getByText(/is not known to this broker, or the secret is not/).first().waitFor();
    assert.equal(await stranger.page.getByText("Busiest topics").count(), 0);
    await stranger.close();
  } finally {
    broker = usual;
    await guarded.stop();
  }
});

test("a broker that has gone is told of, and what was shown stays", async () => {
  const { page, go, close } = await open({ viewport: { width: 360, height: 740 }, colorScheme: "dark" });
  await go("topics");
  await page.getByRole("link", { name: "payments" }).waitFor();
  stopProducing();
  await broker.kill();
  await page.getByText(/no longer live/).waitFor({ timeout: 15_000 });
  assert.ok(await page.getByRole("link", { name: "payments" }).isVisible());
  await inspect(page, "a broker that has gone");
  await page.screenshot({ path: join(PICTURES, "gone-360-dark.png") });
  await close();
});
