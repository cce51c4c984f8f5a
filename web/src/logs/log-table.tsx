// The table of one page of log messages, with their sensors.
import type { Schemas } from "../api/client";
import { SeverityBadge } from "../parts/severity-badge";
import { Time } from "../parts/time";

interface Props {
  messages: Schemas["FleetLogMessage"][];
  busy: boolean;
}

export function LogTable({ messages, busy }: Props) {
  return (
    <table class="logs" aria-label="Log messages" aria-busy={busy}>
      <thead>
        <tr>
          <th scope="col">Time</th>
          <th scope="col">Severity</th>
          <th scope="col">Sensor</th>
          <th scope="col">Message</th>
        </tr>
      </thead>
      <tbody>
        {messages.map((message) => (
          <tr
            key={`${message.sensor_identifier} ${message.timestamp} ${message.subject} ${message.details}`}
            class={message.severity}
          >
            <td class="when">
              <Time at={message.creation_timestamp} as="short" />
            </td>
            <td>
              <SeverityBadge severity={message.severity} />
            </td>
            <td>
              <a href={`/sensors/${message.sensor_identifier}`}>{message.sensor_name}</a>
            </td>
            <td class="message">
              <span class="subject">{message.subject}</span>
              {message.details && <span class="details">{message.details}</span>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
