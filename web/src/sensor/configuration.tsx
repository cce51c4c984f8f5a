// The configuration of the sensor: the newest and the acknowledged revision, an editor, and all revisions.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { useResource } from "../parts/use-resource";
import { ConfigurationEditor } from "./configuration-editor";
import { ConfigurationHistory } from "./configuration-history";
import { ConfigurationPanel } from "./configuration-panel";
import { type Feed, useFeed } from "./feed";

const PAGE_SIZE = 20;

interface Props {
  sensor: Schemas["SensorDetail"];
  feed: Feed;
  canConfigure: boolean;
  mayNest: boolean;
  sent: () => void;
}

export function Configuration({ sensor, feed, canConfigure, mayNest, sent }: Props) {
  const { identifier } = sensor;
  const pages = usePages(identifier);
  const history = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/sensors/{identifier}/configurations", {
          signal,
          params: {
            path: { identifier },
            query: { limit: PAGE_SIZE, ...(pages.cursor && { cursor: pages.cursor }) },
          },
        }),
      ),
    [identifier, pages.cursor],
  );
  const one = (revision: number | null | undefined) => async (signal: AbortSignal) => {
    if (revision == null) return null;
    const path = { identifier, revision: String(revision) };
    return body(
      client.GET("/api/v1/sensors/{identifier}/configurations/{revision}", { signal, params: { path } }),
    );
  };
  const newest = useResource(one(sensor.newest_revision), [
    identifier,
    sensor.newest_revision,
    sensor.configuration_state,
  ]);
  const acknowledged = useResource(one(sensor.last_acknowledged_revision), [
    identifier,
    sensor.last_acknowledged_revision,
  ]);
  const reload = () => {
    history.reload();
    newest.reload();
    acknowledged.reload();
  };
  useFeed(feed, "configuration", reload);
  useFeed(feed, "reconnected", reload);
  const [announced, setAnnounced] = useState("");
  useFeed(feed, "configuration", ({ revision, state }) => setAnnounced(`Revision ${revision} is ${state}.`));
  return (
    <section aria-labelledby="configuration">
      <h2 id="configuration">Configuration</h2>
      <ProblemMessage problem={history.problem ?? newest.problem ?? acknowledged.problem} />
      <p class="announcement" role="status">
        {announced}
      </p>
      {sensor.newest_revision == null && newest.data === null && (
        <p class="quiet">
          The sensor has no configuration yet.{" "}
          {canConfigure ? "Enter the first one below." : "An operator can send one."}
        </p>
      )}
      <div class="side-by-side">
        {newest.data && <ConfigurationPanel title="Newest" configuration={newest.data} />}
        {acknowledged.data && <ConfigurationPanel title="Acknowledged" configuration={acknowledged.data} />}
      </div>
      {canConfigure && newest.data !== undefined && (
        <ConfigurationEditor
          sensor={identifier}
          newest={newest.data}
          mayNest={mayNest}
          sent={() => {
            sent();
            reload();
          }}
        />
      )}
      {history.data && history.data.items.length > 0 && <ConfigurationHistory items={history.data.items} />}
      <Pager pages={pages} next={history.data?.next} />
    </section>
  );
}
