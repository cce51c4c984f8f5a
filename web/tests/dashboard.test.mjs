// The dashboard in a real browser, against the real service, PostgreSQL, a broker and a simulated fleet.
// Run by scripts/test-dashboard.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, afterEach, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { launch, Visitor } from "./support/browser.mjs";
import { Service, until } from "./support/service.mjs";

const UNKNOWN_SENSOR = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
const PASSWORD = "correct horse battery";
const VIEWS = { fleet: "/", logs: "/logs", rejections: "/rejections", ingest: "/ingest", access: "/access" };

let service;
let browser;
let admin;
let sensors;

const now = () => Math.floor(Date.now() / 1_000);

before(async () => {
  service = await Service.start();
  admin = await service.token("admin", "admin");
  service.simulate(admin, 20);
  browser = await launch();
  sensors = await until("the simulated sensors exist", async () => {
    const { items } = await service.request(admin, "GET", "/api/v1/sensors?limit=20");
    return items.length === 20 && items.every((it) => it.last_seen_timestamp) && items;
  });
});

// Closes the contexts that a failed test has left open.
afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));

after(async () => {
  await browser?.close();
  await service?.close();
});

async function visit(path, options = {}) {
  const visitor = await Visitor.open(browser, service.base, { token: admin, ...options });
  await visitor.page.goto(path);
  return visitor;
}

const shows = (locator) => locator.waitFor({ state: "visible" });

test("the whole dashboard is at most 120 KB to load", () => {
  const folder = new URL("../dist/assets/", import.meta.url);
  const sizes = readdirSync(folder).map((name) => gzipSync(readFileSync(new URL(name, folder))).length);
  const total = sizes.reduce(
    (a, b) => a + b,
    gzipSync(readFileSync(new URL("../dist/index.html", import.meta.url))).length,
  );
  assert.ok(total <= 120_000, `${total} bytes`);
});

test("a user signs in by password and signs out; a wrong password shows an error", async () => {
  await service.tributary(["user", "create", "--name", "ada", "--role", "operator"], `${PASSWORD}\n`);
  const visitor = await Visitor.open(browser, service.base);
  const { page } = visitor;
  // A browser logs the status 401 of a failed sign-in.
  visitor.isOutage = true;
  await page.goto("/logs");
  const form = page.getByRole("form", { name: "Sign in with a password" });
  await page.getByRole("textbox", { name: "Name" }).fill("ada");
  await page.getByLabel("Password", { exact: true }).fill("wrong");
  await form.getByRole("button", { name: "Sign in" }).click();
  const problem = page.getByRole("alert");
  await shows(problem);
  assert.match(await problem.textContent(), /Request ID [0-9a-f-]{36}/);
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await form.getByRole("button", { name: "Sign in" }).click();
  await shows(page.getByRole("heading", { level: 1, name: "Logs" }));
  assert.equal(new URL(page.url()).pathname, "/logs");
  await page.getByRole("button", { name: "Sign out" }).click();
  await shows(page.getByRole("textbox", { name: "Token" }));
  assert.equal(await page.evaluate(() => sessionStorage.getItem("tributary.token")), null);
  await visitor.close();
});

test("a user signs in by token; after the token is revoked, a new sign-in returns to the same address", async () => {
  const token = await service.token("short-lived", "viewer");
  const visitor = await Visitor.open(browser, service.base);
  const { page } = visitor;
  visitor.isOutage = true;
  await page.goto("/?state=none");
  const byToken = page.getByRole("form", { name: "Sign in with a token" });
  await page.getByRole("textbox", { name: "Token" }).fill(token);
  await byToken.getByRole("button", { name: "Sign in" }).click();
  await shows(page.getByRole("table", { name: "Sensors" }));
  const { items } = await service.request(admin, "GET", "/api/v1/tokens");
  const revoked = items.find((it) => it.name === "short-lived");
  await service.request(admin, "DELETE", `/api/v1/tokens/${revoked.identifier}`);
  await shows(page.getByText("Your session has ended"));
  await page.getByRole("textbox", { name: "Token" }).fill(await service.token("another", "viewer"));
  await byToken.getByRole("button", { name: "Sign in" }).click();
  await shows(page.getByRole("table", { name: "Sensors" }));
  assert.equal(new URL(page.url()).search, "?state=none");
  await visitor.close();
});

test("actions that a role may not perform are not shown", async () => {
  const sensor = `/sensors/${sensors[0].identifier}`;
  for (const [role, expected] of [
    ["viewer", { add: 0, access: 0, configure: 0, pause: 0, manage: 0 }],
    ["operator", { add: 0, access: 0, configure: 1, pause: 0, manage: 0 }],
    ["admin", { add: 1, access: 1, configure: 1, pause: 1, manage: 1 }],
  ]) {
    const visitor = await visit("/", { token: await service.token(`role ${role}`, role) });
    const { page } = visitor;
    await shows(page.getByRole("row").nth(1));
    const found = {};
    found.add = await page.getByRole("button", { name: "Add a sensor" }).count();
    found.access = await page.getByRole("link", { name: "Access" }).count();
    await page.goto(sensor);
    await shows(page.getByRole("region", { name: "Configuration" }));
    await shows(page.getByText(/The sensor has no configuration yet|Newest: revision/));
    found.configure = await page.getByRole("textbox", { name: "New configuration" }).count();
    found.manage = await page.getByRole("button", { name: "Edit" }).count();
    await page.goto("/ingest");
    await shows(page.getByRole("table", { name: "Ledger" }));
    found.pause = await page.getByRole("button", { name: "Pause" }).count();
    assert.deepEqual(found, expected, role);
    await visitor.close();
  }
});

test("a sensor is found by a part of its name, and the counts filter by state", async () => {
  const visitor = await visit("/");
  const { page } = visitor;
  const rows = page.getByRole("table", { name: "Sensors" }).getByRole("row");
  await until("all sensors are shown", async () => (await rows.count()) === 21);
  await page.getByRole("searchbox", { name: "Search sensors" }).fill("ATED-0007");
  await until("one sensor is found", async () => (await rows.count()) === 2);
  await page.getByRole("button", { name: "failed" }).click();
  await shows(page.getByText("No sensor matches."));
  await page.getByRole("button", { name: "Show all sensors" }).click();
  await until("all sensors are shown again", async () => (await rows.count()) === 21);
  // By keyboard only.
  await page.getByRole("link", { name: "simulated-0003" }).focus();
  await page.keyboard.press("Enter");
  await shows(page.getByRole("heading", { level: 1, name: "simulated-0003" }));
  await visitor.close();
});

test("the fleet is shown in pages", async () => {
  const network = await service.request(admin, "POST", "/api/v1/networks", { name: "large" });
  await service.query(
    `insert into sensor (identifier, network_identifier, name) select gen_random_uuid(), '${network.identifier}', 'page ' || to_char(n, 'fm000') from generate_series(1, 150) n`,
  );
  const visitor = await visit(`/?network=${network.identifier}`);
  const { page } = visitor;
  const rows = page.getByRole("table", { name: "Sensors" }).getByRole("row");
  await until("the first page is full", async () => (await rows.count()) === 101);
  await page.getByRole("button", { name: "Next" }).click();
  await shows(page.getByRole("link", { name: "page 101" }));
  assert.equal(await rows.count(), 51);
  await page.getByRole("button", { name: "Previous" }).click();
  await shows(page.getByRole("link", { name: "page 001" }));
  await visitor.close();
  await service.query(`delete from sensor where network_identifier = '${network.identifier}'`);
});

test("a sensor is added, renamed and deleted", async () => {
  const visitor = await visit("/");
  const { page } = visitor;
  await page.getByRole("button", { name: "Add a sensor" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("Name").fill("roof");
  await dialog.getByRole("button", { name: "Add" }).click();
  const example = await dialog.getByText("mosquitto_pub").textContent();
  await dialog.getByRole("link", { name: "Open the sensor" }).click();
  await shows(page.getByRole("heading", { level: 1, name: "roof" }));
  await shows(page.getByText("No measurements in the last 28 days"));
  // The example command is valid.
  const [, topic, message] = example.match(/-t (\S+) \\\s+-m '(.*)'$/);
  await service.publishAt(topic, message);
  await shows(page.getByRole("img", { name: "Chart of temperature" }));
  await page.getByRole("button", { name: "Edit" }).click();
  await dialog.getByLabel("Name").fill("roof, north");
  await dialog.getByLabel("Metadata").fill('{"height_m": 12}');
  await dialog.getByRole("button", { name: "Save" }).click();
  await shows(page.getByRole("heading", { level: 1, name: "roof, north" }));
  await shows(page.getByText("height_m"));
  await page.getByRole("button", { name: "Delete" }).click();
  assert.ok(await dialog.getByRole("button", { name: "Delete" }).isDisabled());
  await dialog.getByRole("textbox").fill("roof, north");
  await dialog.getByRole("button", { name: "Delete" }).click();
  await shows(page.getByRole("heading", { level: 1, name: "Fleet" }));
  await visitor.close();
});

test("charts are updated with new values, and dragging selects a range", async () => {
  const visitor = await visit(`/sensors/${sensors[0].identifier}`);
  const { page } = visitor;
  const chart = page
    .getByRole("region", { name: "Measurements" })
    .getByRole("img", { name: "Chart of temperature" });
  await shows(chart);
  const pixels = () => chart.locator("canvas").evaluate((canvas) => canvas.toDataURL());
  const before = await pixels();
  await until("the chart is updated", async () => (await pixels()) !== before);
  await service.publish(
    `measurements/${sensors[0].identifier}`,
    JSON.stringify({
      measurements: [{ revision: 0, timestamp: now(), value: { marker: 4711.5, label: "<b>bold</b>" } }],
    }),
  );
  await shows(page.getByRole("img", { name: "Chart of marker" }));
  await shows(page.getByText("4,711.5").first());
  await shows(page.getByRole("cell", { name: "<b>bold</b>" }));
  const { x, y, width, height } = await chart.locator(".u-over").boundingBox();
  await page.mouse.move(x + width * 0.3, y + height / 2);
  await page.mouse.down();
  await page.mouse.move(x + width * 0.7, y + height / 2, { steps: 5 });
  await page.mouse.up();
  const pressed = page
    .getByRole("group", { name: "Range of the charts" })
    .getByRole("button", { pressed: true });
  await until("no preset range is selected", async () => (await pressed.count()) === 0);
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "24 h" }).click();
  await page.getByRole("button", { name: "Export CSV" }).click();
  assert.match((await download).suggestedFilename(), /\.csv$/);
  await visitor.close();
});

async function send(page, text) {
  const editor = page.getByRole("textbox", { name: "New configuration" });
  await editor.fill(text);
  await page.getByRole("button", { name: "Review" }).click();
  const dialog = page.getByRole("dialog", { name: "Send configuration" });
  await shows(dialog);
  return dialog;
}

test("a configuration is checked, sent and acknowledged", async () => {
  const visitor = await visit(`/sensors/${sensors[1].identifier}`);
  const { page } = visitor;
  const configuration = page.getByRole("region", { name: "Configuration" });
  const editor = page.getByRole("textbox", { name: "New configuration" });
  for (const [text, problem] of [
    ["{", /not JSON/],
    ["[]", /a JSON object/],
    ['{"a": {"b": 1}}', /"a" is nested/],
  ]) {
    await editor.fill(text);
    await shows(configuration.getByText(problem));
    assert.ok(await page.getByRole("button", { name: "Review" }).isDisabled(), text);
  }
  const dialog = await send(page, '{"interval_secs": 1, "colour": "blue"}');
  await shows(dialog.getByRole("row", { name: /colour/ }));
  await dialog.getByRole("button", { name: "Send" }).click();
  await shows(configuration.getByRole("heading", { name: "Acknowledged: revision 1 acknowledged" }));
  const again = await send(page, '{"interval_secs": 2, "colour": "blue"}');
  await shows(again.getByRole("row", { name: "interval_secs 1 2" }));
  assert.equal(
    await again.getByRole("row", { name: /colour/ }).count(),
    0,
    "unchanged members are not listed",
  );
  await again.getByRole("button", { name: "Send" }).click();
  await shows(configuration.getByRole("heading", { name: "Acknowledged: revision 2 acknowledged" }));
  assert.match(await editor.inputValue(), /"interval_secs": 2/);
  await visitor.close();
});

test("a configuration that the sensor rejects is shown as failed", async () => {
  const visitor = await visit(`/sensors/${sensors[2].identifier}`);
  const { page } = visitor;
  const configuration = page.getByRole("region", { name: "Configuration" });
  await (await send(page, '{"reject": true}')).getByRole("button", { name: "Send" }).click();
  await shows(configuration.getByRole("heading", { name: "Newest: revision 1 failed" }));
  await shows(configuration.locator(".failed-row"));
  await page.goto("/?state=failed");
  await shows(page.getByRole("link", { name: sensors[2].name }));
  await visitor.close();
});

test("log messages are shown on the sensor's page and on the logs page, without interpreting HTML", async () => {
  const { identifier, name } = sensors[3];
  const sensorPage = await visit(`/sensors/${identifier}`);
  const fleetPage = await visit("/logs");
  await shows(sensorPage.page.getByRole("region", { name: "Logs" }));
  await shows(fleetPage.page.getByRole("heading", { name: "Logs" }));
  const message = {
    severity: "error",
    revision: 0,
    timestamp: now(),
    subject: "<i>battery</i> low",
    details: "3.0 V",
  };
  await service.publish(`log-messages/${identifier}`, JSON.stringify({ log_messages: [message] }));
  await shows(sensorPage.page.getByRole("region", { name: "Logs" }).getByText("<i>battery</i> low"));
  const row = fleetPage.page.getByRole("row", { name: /battery/ });
  await shows(row);
  await shows(row.getByRole("link", { name }));
  await fleetPage.page.getByRole("searchbox", { name: "Message contains" }).fill("BATTERY");
  await fleetPage.page.getByRole("button", { name: "error" }).click();
  await until("one log message is left", async () => (await fleetPage.page.getByRole("row").count()) === 2);
  await sensorPage.close();
  await fleetPage.close();
});

test("a rejection is inspected, replayed and deleted", async () => {
  const measurement = { revision: 0, timestamp: now(), value: { wind: 2.5 } };
  await service.publish(`measurements/${UNKNOWN_SENSOR}`, JSON.stringify({ measurements: [measurement] }));
  await service.publish(`measurements/${sensors[0].identifier}`, "not JSON");
  const visitor = await visit("/rejections");
  const { page } = visitor;
  const row = page.getByRole("row", { name: /unknown_sensor/ });
  await until("both rejections are listed", async () => {
    await page.reload();
    await shows(page.getByRole("heading", { name: "Rejections" }));
    await page.waitForLoadState("networkidle");
    return (await row.count()) === 1 && (await page.getByRole("row", { name: /not_json/ }).count()) === 1;
  });
  await row.getByRole("button", { name: "unknown_sensor" }).click();
  await shows(page.getByText(`measurements/${UNKNOWN_SENSOR}`));
  await shows(page.getByText('"wind":2.5'));
  await page.getByRole("button", { name: "Show in hexadecimal" }).click();
  await shows(page.getByText("000000  7b 22"));
  await service.request(admin, "POST", "/api/v1/sensors", {
    name: "unknown until now",
    identifier: UNKNOWN_SENSOR,
  });
  await row.getByRole("button", { name: "Replay", exact: true }).click();
  await shows(page.getByText("1 replayed: 1 item stored."));
  await until("the rejection is not listed any more", async () => (await row.count()) === 0);
  await page
    .getByRole("row", { name: /not_json/ })
    .getByRole("button", { name: "Delete" })
    .click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await shows(page.getByText("1 deleted."));
  await shows(page.getByText("Nothing was rejected."));
  await visitor.close();
});

test("the ledger balances, and ingest is paused and resumed", async () => {
  const visitor = await visit("/ingest");
  const { page } = visitor;
  const ledger = page.getByRole("table", { name: "Ledger" });
  await shows(ledger.getByRole("row", { name: /Measurements/ }));
  for (const row of await ledger.locator("tbody tr").all()) {
    assert.equal(await row.locator("td").last().textContent(), "0");
  }
  await shows(page.getByRole("img", { name: "Chart of Items per second" }));
  await page.getByRole("button", { name: "Pause" }).click();
  await shows(page.getByText("The broker queues messages until ingest is resumed."));
  await page.getByRole("button", { name: "Resume" }).click();
  await shows(page.getByRole("button", { name: "Pause" }));
  await visitor.close();
});

test("the ingest page shows the sum of the ledgers of all instances", async () => {
  const stopOther = await service.startAnother();
  const visitor = await visit("/ingest");
  const { page } = visitor;
  const instances = page.getByRole("table", { name: "Instances", exact: true });
  await shows(instances.getByRole("row", { name: /-other/ }));
  await shows(instances.getByRole("row", { name: /this instance/ }));
  assert.equal(await instances.getByRole("cell", { name: "yes" }).count(), 1);
  const received = async (table) => {
    const texts = await table.locator("tbody tr td:nth-child(2)").allTextContents();
    return texts.reduce((sum, text) => sum + Number(text.replaceAll(",", "")), 0);
  };
  await until("the sum is larger than each ledger", async () => {
    const ofAll = await received(page.getByRole("table", { name: "Ledger of all instances" }));
    const ofOne = await received(page.getByRole("table", { name: "Ledger of this instance" }));
    const listed = await instances.locator("tbody tr td:nth-child(5)").allTextContents();
    return listed.length === 2 && listed.every((text) => text !== "0") && ofAll > ofOne;
  });
  await visitor.screenshot("ingest-instances");
  await stopOther();
  await page.getByRole("table", { name: "Ledger", exact: true }).waitFor();
  await visitor.close();
});

test("a network, a token and a user are created and removed", async () => {
  const visitor = await visit("/access");
  const { page } = visitor;
  const dialog = page.getByRole("dialog");
  await page.getByRole("button", { name: "Create a network" }).click();
  await dialog.getByLabel("Name").fill("north field");
  await dialog.getByRole("button", { name: "Save" }).click();
  await shows(page.getByRole("row", { name: /north field/ }));
  await page.getByRole("button", { name: "Create a token" }).click();
  await dialog.getByLabel("Name").fill("reader");
  await dialog.getByRole("button", { name: "Create" }).click();
  const token = await dialog.getByText(/^trb_/).textContent();
  await service.request(token, "GET", "/api/v1/sensors");
  await dialog.getByRole("button", { name: "Done" }).click();
  assert.equal(await page.getByText(token).count(), 0, "the token is shown only once");
  await page.getByRole("button", { name: "Revoke reader" }).click();
  await dialog.getByRole("button", { name: "Revoke" }).click();
  await until(
    "the token is not listed any more",
    async () => (await page.getByRole("row", { name: /reader/ }).count()) === 0,
  );
  await page.getByRole("button", { name: "Create a user" }).click();
  await dialog.getByLabel("Name").fill("grace");
  await dialog.getByLabel("Password").fill(PASSWORD);
  await dialog.getByRole("button", { name: "Save" }).click();
  await shows(page.getByRole("row", { name: /grace viewer/ }));
  await page.getByRole("button", { name: "Change grace" }).click();
  await dialog.getByLabel("Role").selectOption("operator");
  await dialog.getByRole("button", { name: "Save" }).click();
  await shows(page.getByRole("row", { name: /grace operator/ }));
  await page.getByRole("button", { name: "Delete grace" }).click();
  await dialog.getByRole("button", { name: "Delete" }).click();
  await until(
    "the user is not listed any more",
    async () => (await page.getByRole("row", { name: /grace/ }).count()) === 0,
  );
  await page.getByRole("button", { name: "Delete north field" }).click();
  await dialog.getByRole("button", { name: "Delete" }).click();
  await until(
    "the network is not listed any more",
    async () => (await page.getByRole("row", { name: /north field/ }).count()) === 0,
  );
  await visitor.close();
});

test("no view has a serious axe finding or is wider than the screen, in light and dark", async () => {
  const views = { ...VIEWS, sensor: `/sensors/${sensors[1].identifier}` };
  await service.publish(`measurements/${sensors[0].identifier}`, '{"measurements":[{"timestamp":');
  await until("the message is rejected", async () => {
    const { items } = await service.request(admin, "GET", "/api/v1/rejections/summary");
    return items.length > 0;
  });
  for (const [colorScheme, width, height] of [
    ["light", 390, 844],
    ["dark", 390, 844],
    ["light", 2_560, 1_440],
    ["dark", 2_560, 1_440],
  ]) {
    for (const [name, path] of Object.entries(views)) {
      const visitor = await visit(path, { colorScheme, viewport: { width, height } });
      await shows(visitor.page.getByRole("heading", { level: 1 }));
      // A view with a stream never becomes network-idle, so wait until nothing is busy.
      await visitor.page.locator("[aria-busy=true]").waitFor({ state: "detached" });
      if (name === "rejections") {
        await visitor.page.getByRole("button", { name: "not_json" }).click();
        await shows(visitor.page.getByRole("button", { name: "Show in hexadecimal" }));
      }
      if (name === "ingest") await until("a chart is drawn", () => visitor.page.locator(".u-over").count());
      assert.deepEqual(await visitor.accessibilityFindings(), [], `${name}, ${colorScheme}, ${width} px`);
      const contentWidth = await visitor.page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(contentWidth <= width, `${name} is ${contentWidth} px wide on ${width} px`);
      await visitor.screenshot(`${name}-${width}-${colorScheme}`);
      await visitor.close();
    }
  }
  const visitor = await Visitor.open(browser, service.base);
  await visitor.page.goto("/");
  await shows(visitor.page.getByRole("textbox", { name: "Token" }));
  assert.deepEqual(await visitor.accessibilityFindings(), [], "sign-in");
  await visitor.screenshot("sign-in-1280-light");
  await visitor.close();
});

test("the page shows that the service is unreachable, and then shows all messages", async () => {
  const { identifier } = sensors[4];
  const visitor = await visit(`/sensors/${identifier}`);
  const { page } = visitor;
  const logs = page.getByRole("region", { name: "Logs" });
  await shows(logs);
  await shows(page.getByRole("img", { name: "Chart of temperature" }));
  visitor.isOutage = true;
  await service.stopServing();
  await shows(page.getByText("No connection to the service"));
  // The broker queues the message, and the service stores it before the page has reconnected its stream.
  const message = {
    severity: "warning",
    revision: 0,
    timestamp: now(),
    subject: "published during the outage",
  };
  await service.publish(`log-messages/${identifier}`, JSON.stringify({ log_messages: [message] }));
  await service.serve();
  await page.getByText("No connection to the service").waitFor({ state: "detached" });
  await shows(logs.getByText("published during the outage"));
  await visitor.close();
});

test("the page shows that the database is unreachable, and recovers without a reload", async () => {
  const visitor = await visit("/ingest");
  const { page } = visitor;
  const writing = page.getByRole("row", { name: /Database: writing/ });
  await shows(writing);
  visitor.isOutage = true;
  await service.proxy.close();
  await shows(writing.getByText("down"));
  await page.getByRole("link", { name: "Fleet" }).click();
  const problem = page.getByRole("alert").first();
  await shows(problem);
  assert.match(await problem.textContent(), /The database cannot be reached/);
  await service.proxy.open();
  await shows(page.getByRole("link", { name: sensors[0].name }));
  await visitor.close();
});

const needsPrivatePostgres = { skip: !Service.mayStopPostgres && "the tests did not start this PostgreSQL" };

test("an open page shows everything after a restart of PostgreSQL", needsPrivatePostgres, async () => {
  const { identifier } = sensors[5];
  const visitor = await visit(`/sensors/${identifier}`);
  const { page } = visitor;
  const configuration = page.getByRole("region", { name: "Configuration" });
  await shows(page.getByRole("img", { name: "Chart of temperature" }));
  visitor.isOutage = true;
  await service.stopPostgres();
  // The broker queues the message, and the dialog keeps the configuration.
  const message = {
    severity: "warning",
    revision: 1,
    timestamp: now(),
    subject: "published without a database",
  };
  await service.publish(`log-messages/${identifier}`, JSON.stringify({ log_messages: [message] }));
  const dialog = await send(page, '{"interval_secs": 1, "colour": "green"}');
  await dialog.getByRole("button", { name: "Send" }).click();
  const problem = dialog.getByRole("alert");
  await shows(problem);
  assert.match(await problem.textContent(), /database.*Request ID [0-9a-f-]{36}/i);
  await service.startPostgres();
  await until("the dialog has sent the configuration", async () => {
    const button = dialog.getByRole("button", { name: "Send" });
    if (await button.isEnabled().catch(() => false)) await button.click().catch(() => {});
    return (await dialog.count()) === 0;
  });
  await shows(configuration.getByRole("heading", { name: "Acknowledged: revision 1 acknowledged" }));
  await shows(page.getByRole("region", { name: "Logs" }).getByText("published without a database"));
  const { items } = await service.request(admin, "GET", `/api/v1/sensors/${identifier}/configurations`);
  assert.equal(items.length, 1, "repeated requests create one revision");
  await page.getByRole("link", { name: "Fleet" }).click();
  await shows(page.getByRole("link", { name: sensors[0].name }));
  await visitor.close();
});

test("a browser with a wrong clock shows times by the clock of the service", async () => {
  for (const offsetMs of [-600_000, 7_200_000]) {
    const visitor = await Visitor.open(browser, service.base, { token: admin });
    const { page } = visitor;
    await page.clock.setSystemTime(Date.now() + offsetMs);
    await page.goto("/");
    const seen = page.getByRole("row", { name: /simulated-0001/ }).locator("time");
    await until("the sensor was seen a few seconds ago", async () =>
      /^(now|\d+ sec\. ago)$/.test(await seen.first().textContent()),
    );
    await page.goto("/?silent=yes");
    await shows(page.getByRole("searchbox", { name: "Search sensors" }));
    await page.locator("[aria-busy=true]").waitFor({ state: "detached" });
    assert.equal(
      await page.getByRole("link", { name: "simulated-0001" }).count(),
      0,
      "the sensor is not silent",
    );
    await visitor.close();
  }
});

test("the API page shows an operation, and requests no other origin", async () => {
  const visitor = await visit("/docs/");
  await shows(visitor.page.getByText("/api/v1/sensors/{identifier}/live"));
  await visitor.close();
});

test("with AUTH=off no sign-in is required", async () => {
  await service.stopServing();
  await service.serve({ AUTH: "off", NESTED_VALUES: "store" });
  const visitor = await Visitor.open(browser, service.base);
  await visitor.page.goto("/ingest");
  // A request without a body and a token: the service accepts it only from its own page.
  await visitor.page.getByRole("button", { name: "Pause" }).click();
  await visitor.page.getByRole("button", { name: "Resume" }).click();
  await shows(visitor.page.getByRole("button", { name: "Pause" }));
  assert.equal(await visitor.page.getByRole("button", { name: "Sign out" }).count(), 0);
  // With NESTED_VALUES=store, objects and arrays may be sent.
  await visitor.page.goto(`/sensors/${sensors[6].identifier}`);
  const dialog = await send(visitor.page, '{"schedule": {"days": ["mo", "tu"]}}');
  await dialog.getByRole("button", { name: "Send" }).click();
  await shows(visitor.page.getByRole("heading", { name: "Acknowledged: revision 1 acknowledged" }));
  await visitor.close();
});
