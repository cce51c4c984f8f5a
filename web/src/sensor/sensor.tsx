// The page of one sensor: measurements, configuration, log messages and heartbeats.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { useStream } from "../api/stream";
import { useNetworks } from "../parts/networks";
import { ProblemMessage } from "../parts/problem-message";
import { useSettings } from "../parts/settings";
import { StateBadge } from "../parts/state-badge";
import { Time } from "../parts/time";
import { useResource, useThrottled } from "../parts/use-resource";
import { type Caller, hasRole } from "../session/session";
import { Configuration } from "./configuration";
import { createFeed } from "./feed";
import { Heartbeats } from "./heartbeats";
import { Logs } from "./logs";
import { Manage } from "./manage";
import { Measurements } from "./measurements";

const REFRESH_MS = 2_000;

interface Props {
  identifier: string;
  caller: Caller;
}

export function Sensor({ identifier, caller }: Props) {
  // The key discards all state when another sensor is opened.
  return <SensorPage key={identifier} identifier={identifier} caller={caller} />;
}

function SensorPage({ identifier, caller }: Props) {
  const sensor = useResource(
    (signal) =>
      body(client.GET("/api/v1/sensors/{identifier}", { signal, params: { path: { identifier } } })),
    [identifier],
  );
  const networks = useNetworks();
  const settings = useSettings();
  const [feed] = useState(createFeed);
  const [isDeleted, setDeleted] = useState(false);
  const [seen, setSeen] = useState<string | null>(null);
  const refresh = useThrottled(sensor.reload, REFRESH_MS);
  useStream(`/api/v1/sensors/${identifier}/stream`, {
    onEvent(name, data) {
      feed.publish(name, data);
      if (name === "configuration") refresh();
      if (name === "dropped" && (data as Schemas["StreamDropped"]).reason === "deleted") setDeleted(true);
      const receipt = (data as { receipt_timestamp?: string }).receipt_timestamp;
      if (receipt) setSeen(receipt);
    },
    onOpen(isReconnect) {
      if (isReconnect) {
        feed.publish("reconnected", null);
        sensor.reload();
      }
    },
  });
  if (isDeleted || sensor.problem?.status === 404) {
    return (
      <section class="empty">
        <h1>Sensor not found</h1>
        <p>
          There is no sensor with this identifier, or it was deleted. <a href="/">Go to the fleet</a>
        </p>
      </section>
    );
  }
  const shown = sensor.data;
  if (!shown) return <ProblemMessage problem={sensor.problem} retry={sensor.reload} />;
  const network = networks.find((network) => network.identifier === shown.network);
  return (
    <>
      <div class="title">
        <h1>{shown.name}</h1>
        {hasRole(caller, "admin") && <Manage sensor={shown} networks={networks} changed={sensor.reload} />}
      </div>
      <dl class="facts">
        <div>
          <dt>Configuration</dt>
          <dd>
            <StateBadge state={shown.configuration_state} />
          </dd>
        </div>
        <div>
          <dt>Last seen</dt>
          <dd>
            <Time at={latest(shown.last_seen_timestamp, seen)} />
          </dd>
        </div>
        {networks.length > 1 && (
          <div>
            <dt>Network</dt>
            <dd>{network?.name ?? shown.network}</dd>
          </div>
        )}
        <div>
          <dt>Identifier</dt>
          <dd>
            <code>{shown.identifier}</code>
          </dd>
        </div>
        {Object.entries(shown.metadata).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{typeof value === "string" ? value : JSON.stringify(value)}</dd>
          </div>
        ))}
      </dl>
      <ProblemMessage problem={sensor.problem} />
      {settings && (
        <Measurements sensor={identifier} feed={feed} futureTolerance={settings.future_tolerance_secs} />
      )}
      <Configuration
        sensor={shown}
        feed={feed}
        canConfigure={hasRole(caller, "operator")}
        mayNest={settings?.nested_values === "store"}
        sent={sensor.reload}
      />
      <Logs sensor={identifier} feed={feed} />
      <Heartbeats sensor={identifier} feed={feed} />
    </>
  );
}

function latest(a: string | null | undefined, b: string | null): string | null {
  if (!a || !b) return a ?? b;
  return Date.parse(a) > Date.parse(b) ? a : b;
}
