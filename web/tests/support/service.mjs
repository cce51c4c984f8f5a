// The real service on a database of its own, with a simulated fleet; it can be stopped and started, and
// its way to PostgreSQL can be cut.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { promisify } from "node:util";

const run = promisify(execFile);
const PROGRAM = process.env.TRIBUTARY ?? "../target/debug/tributary";
const START_MS = 60_000;

const SERVERS = new URL("../../../scripts/lib/servers.sh", import.meta.url).pathname;

/** Undefined: it is not ours to be stopped. */
const { POSTGRES_SERVER } = process.env;

/** Asks until the answer is true. */
export async function until(what, ask, patienceMs = 20_000) {
  const end = Date.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`not within ${patienceMs / 1_000} s: ${what}`);
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

/** Stands between the service and PostgreSQL. */
class Way {
  #sockets = new Set();
  #server;
  port;

  constructor(target) {
    this.target = target;
  }

  async open() {
    this.port ??= await freePort();
    this.#server = createServer((near) => {
      const far = connect(Number(this.target.port || 5432), this.target.hostname);
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => {
          this.#sockets.delete(socket);
          near.destroy();
          far.destroy();
        });
      }
      near.pipe(far).pipe(near);
    });
    this.#server.listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  async cut() {
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
    const administration = new URL(process.env.DATABASE_URL);
    service.administration = administration.href;
    service.database = `dashboard_${process.pid}`;
    await service.sql(`create database ${service.database}`);
    const url = new URL(administration);
    url.pathname = `/${service.database}`;
    service.way = new Way(url);
    await service.way.open();
    const through = new URL(url);
    through.host = `127.0.0.1:${service.way.port}`;
    service.base = `http://127.0.0.1:${await freePort()}`;
    service.environment = {
      ...process.env,
      DATABASE_URL: through.href,
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
    return run("psql", ["-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, this.administration]);
  }

  /** In the database of the service. */
  async query(statement) {
    const url = new URL(this.administration);
    url.pathname = `/${this.database}`;
    return (await run("psql", ["-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement, url.href])).stdout.trim();
  }

  async tributary(parameters, input = "") {
    const command = run(PROGRAM, parameters, { env: this.environment });
    command.child.stdin.end(input);
    return (await command).stdout;
  }

  /** A new token. */
  async token(name, role, network) {
    const where = network ? ["--network", network] : [];
    const output = await this.tributary(["token", "create", "--name", name, "--role", role, ...where]);
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
        if (process.exitCode !== null) throw new Error("the service ended at its start");
        return (await fetch(`${base}/readyz`).catch(() => null))?.ok;
      },
      START_MS,
    );
    return process;
  }

  /** A second instance on the same database; returns what stops it. */
  async another() {
    const address = `127.0.0.1:${await freePort()}`;
    const other = await this.#serveAt(`http://${address}`, {
      HTTP_ADDR: address,
      MQTT_CLIENT_ID: `${this.environment.MQTT_CLIENT_ID}-other`,
    });
    return async () => {
      const ended = once(other, "exit");
      other.kill("SIGTERM");
      await ended;
    };
  }

  async stopServing() {
    const ended = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await ended;
  }

  /** Runs until the service is closed. */
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

  /** The whole topic. */
  publishAt(topic, message) {
    return run("mosquitto_pub", ["-L", `${process.env.MQTT_URL}/${topic}`, "-q", "1", "-m", message]);
  }

  async ask(token, method, path, body) {
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
    await this.way.cut();
    await this.sql(`drop database ${this.database} with (force)`);
  }
}
