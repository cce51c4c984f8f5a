// The state of each connection that the service needs, since when, and the problem if it is down.
import type { Schemas } from "../api/client";
import { Scrolls } from "../parts/scrolls";
import { Time } from "../parts/time";

const NAMES = {
  broker_ingest: "Broker: receiving messages",
  broker_publishing: "Broker: publishing configurations",
  database_writing: "Database: writing",
  database: "Database: reading",
} as const;

export function ConnectionTable({ connections }: { connections: Schemas["Connections"] }) {
  return (
    <section aria-labelledby="connections">
      <h2 id="connections">Connections</h2>
      <Scrolls labelledBy="connections">
        <table class="small" aria-labelledby="connections">
          <thead>
            <tr>
              <th scope="col">Connection</th>
              <th scope="col">State</th>
              <th scope="col">Since</th>
              <th scope="col">Problem</th>
            </tr>
          </thead>
          <tbody>
            {Object.entries(NAMES).map(([key, name]) => {
              const { up, since, problem } = connections[key as keyof typeof NAMES];
              return (
                <tr key={key} class={up ? undefined : "failed-row"}>
                  <th scope="row">{name}</th>
                  <td>
                    <span class={`state ${up ? "acknowledged" : "failed"}`}>{up ? "up" : "down"}</span>
                  </td>
                  <td>
                    <Time at={since} none="–" />
                  </td>
                  <td>{problem ?? "none"}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scrolls>
    </section>
  );
}
