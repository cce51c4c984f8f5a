// The table of one page of sensors.
import type { Schemas } from "../api/client";
import type { Network } from "../parts/networks";
import { SensorRow } from "./sensor-row";
import type { Activity } from "./use-activity";

interface Props {
  sensors: Schemas["SensorItem"][];
  networks: Network[];
  activity: Activity;
  busy: boolean;
}

export function SensorTable({ sensors, networks, activity, busy }: Props) {
  const names = new Map(networks.map((network) => [network.identifier, network.name]));
  const showNetwork = networks.length > 1;
  return (
    <table class="sensors" aria-label="Sensors" aria-busy={busy}>
      <thead>
        <tr>
          <th scope="col">Name</th>
          {showNetwork && <th scope="col">Network</th>}
          <th scope="col">Last seen</th>
          <th scope="col" title="One cell per 4 hours; a darker cell means more items">
            Activity in 28 days
          </th>
          <th
            scope="col"
            title="Newest revision of the configuration, and the acknowledged one if it differs"
          >
            Revision
          </th>
          <th scope="col">Configuration</th>
        </tr>
      </thead>
      <tbody>
        {sensors.map((sensor) => (
          <SensorRow
            key={sensor.identifier}
            sensor={sensor}
            network={showNetwork ? (names.get(sensor.network) ?? "") : null}
            activity={activity.of(sensor.identifier)}
          />
        ))}
      </tbody>
    </table>
  );
}
