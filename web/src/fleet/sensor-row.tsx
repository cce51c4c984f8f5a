// The row of one sensor.
import type { Schemas } from "../api/client";
import { StateBadge } from "../parts/state-badge";
import { Time } from "../parts/time";
import { ActivityStrip } from "./activity-strip";
import type { Buckets } from "./use-activity";

interface Props {
  sensor: Schemas["SensorItem"];
  /** Null if there is only one network. */
  network: string | null;
  activity: Buckets | undefined;
}

export function SensorRow({ sensor, network, activity }: Props) {
  const { newest_revision: newest, last_acknowledged_revision: acknowledged } = sensor;
  return (
    <tr>
      <th scope="row" class="name">
        <a href={`/sensors/${sensor.identifier}`}>{sensor.name}</a>
      </th>
      {network !== null && <td class="network">{network}</td>}
      <td class="seen">
        <Time at={sensor.last_seen_timestamp} />
      </td>
      <td class="strip">
        <ActivityStrip buckets={activity} />
      </td>
      <td class="revision">
        {newest == null ? <span class="quiet">none</span> : newest}
        {newest != null && acknowledged !== newest && (
          <span class="quiet"> (acknowledged: {acknowledged ?? "none"})</span>
        )}
      </td>
      <td class="state-cell">
        <StateBadge state={sensor.configuration_state} />
      </td>
    </tr>
  );
}
