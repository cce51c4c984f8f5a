// The real service on a separate database, with a simulated fleet. It can be stopped and started, and its connections to
// PostgreSQL can be closed.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { promisify } from "node:util";

const run = promisify(execFile);
const PROGRAM = process.env.TRIBUTARY ?? "../target/debug/tributary";
const START_MS = 60_000;

const SERVERS = new URL("../../../scripts/lib/servers.sh", import.meta.url).pathname;

/** Undefined if the tests may not stop PostgreSQL. */
const { POSTGRES_SERVER } = process.env;

/** Polls until the condition is true, and returns its value. */
export async function until(what, condition, timeoutMs = 20_000) {
  const end = Date.now() + timeoutMs;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`timeout after ${timeoutMs / 1_000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A TCP proxy between the service and PostgreSQL. */
class TcpProxy {
  #sockets = new Set();
  #server;
  port;

  constructor(target) {
    this.target = target;
  }

  async open() {
    this.port ??= await freePort();
    this.#server = createServer((client) => {
      const upstream = connect(Number(this.target.port || 5432), this.target.hostname);
      for (const socket of [client, upstream]) {
        this.#sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => {
          this.#sockets.delete(socket);
          client.destroy();
          upstream.destroy();
        });
      }
      client.pipe(upstream).pipe(client);
    });
    this.#server.listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  async close() {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

const controlPostgres = (command) =>
  run("bash", ["-c", 'set -euo pipefail; . "$0"; control_postgres "$@"', SERVERS, command, POSTGRES_SERVER]);

export class Service {
  static async start(settings = {}) {
    const service = new Service();
    const adminUrl = new URL(process.env.DATABASE_URL);
    service.adminUrl = adminUrl.href;
    service.database = `dashboard_${process.pid}`;
    await service.sql(`create database ${service.database}`);
    const url = new URL(adminUrl);
    url.pathname = `/${service.database}`;
    service.proxy = new TcpProxy(url);
    await service.proxy.open();
    const proxyUrl = new URL(url);
    proxyUrl.host = `127.0.0.1:${service.proxy.port}`;
    service.base = `http://127.0.0.1:${await freePort()}`;
    service.environment = {
      ...process.env,
      DATABASE_URL: proxyUrl.href,
      MQTT_TOPIC_PREFIX: `dashboard-${process.pid}`,
      MQTT_CLIENT_ID: `dashboard-${process.pid}`,
      HTTP_ADDR: service.base.slice("http://".length),
      LOG_FILTER: "warn",
      ...settings,
    };
    await service.tributary(["migrate"]);
    await service.serve();
    return service;
  }

  sql(statement) {
    return run("psql", ["-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, this.adminUrl]);
  }

  /** Runs a query in the database of the service. */
  async query(statement) {
    const url = new URL(this.adminUrl);
    url.pathname = `/${this.database}`;
    return (await run("psql", ["-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, url.href])).stdout.trim();
  }

  async tributary(parameters, input = "") {
    const command = run(PROGRAM, parameters, { env: this.environment });
    command.child.stdin.end(input);
    return (await command).stdout;
  }

  /** Creates a token. */
  async token(name, role, network) {
    const scope = network ? ["--network", network] : [];
    const output = await this.tributary(["token", "create", "--name", name, "--role", role, ...scope]);
    return output.trim().split("\n").at(-1);
  }

  async serve(settings = {}) {
    this.process = await this.#serveAt(this.base, settings);
  }

  async #serveAt(base, settings) {
    const env = { ...this.environment, ...settings };
    const process = spawn(PROGRAM, ["serve"], { env, stdio: ["ignore", "pipe", "inherit"] });
    process.stdout.resume();
    await until(
      "the service is ready",
      async () => {
        if (process.exitCode !== null) throw new Error("the service exited during its start");
        return (await fetch(`${base}/readyz`).catch(() => null))?.ok;
      },
      START_MS,
    );
    return process;
  }

  /** Starts a second instance on the same database; returns a function that stops it. */
  async startAnother() {
    const address = `127.0.0.1:${await freePort()}`;
    const other = await this.#serveAt(`http://${address}`, {
      HTTP_ADDR: address,
      MQTT_CLIENT_ID: `${this.environment.MQTT_CLIENT_ID}-other`,
    });
    return async () => {
      const exited = once(other, "exit");
      other.kill("SIGTERM");
      await exited;
    };
  }

  async stopServing() {
    const exited = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await exited;
  }

  /** Starts simulated sensors, which run until `close`. */
  simulate(token, sensors) {
    const parameters = [
      "simulate",
      "--api",
      this.base,
      "--sensors",
      String(sensors),
      "--rate",
      "1",
      "--duration",
      "1h",
    ];
    this.fleet = spawn(PROGRAM, parameters, {
      env: { ...this.environment, API_TOKEN: token },
      stdio: "ignore",
    });
  }

  static mayStopPostgres = POSTGRES_SERVER !== undefined;

  stopPostgres = () => controlPostgres("stop");

  startPostgres = () => controlPostgres("restart");

  publish(topic, message) {
    return this.publishAt(`dashboard-${process.pid}/${topic}`, message);
  }

  /** Publishes to a topic that includes the prefix. */
  publishAt(topic, message) {
    return run("mosquitto_pub", ["-L", `${process.env.MQTT_URL}/${topic}`, "-q", "1", "-m", message]);
  }

  async request(token, method, path, body) {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    const response = await fetch(this.base + path, {
      method,
      headers,
      ...(body && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.status === 204 ? null : response.json();
  }

  async close() {
    this.fleet?.kill("SIGKILL");
    if (this.process?.exitCode === null) await this.stopServing();
    await this.proxy.close();
    await this.sql(`drop database ${this.database} with (force)`);
  }
}
