// The fleet: the number of sensors in each state, and pages of sensors, updated by the stream.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { useStream } from "../api/stream";
import { NetworkSelect } from "../parts/network-select";
import { useNetworks } from "../parts/networks";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { useQuery } from "../parts/query";
import type { State } from "../parts/state-badge";
import { useDebounced } from "../parts/use-debounced";
import { useResource, useThrottled } from "../parts/use-resource";
import { type Caller, hasRole } from "../session/session";
import { AddSensor } from "./add-sensor";
import { EmptyFleet } from "./empty-fleet";
import { FleetCounts } from "./fleet-counts";
import { SensorTable } from "./sensor-table";
import { silentSince } from "./silence";
import { useActivity } from "./use-activity";

const PAGE_SIZE = 100;
/** The minimum interval between two reloads of the list after changes. */
const REFRESH_MS = 5_000;
const COUNTS_MS = 15_000;

type Sort = "name" | "last_seen" | "-last_seen";

export function Fleet({ caller }: { caller: Caller }) {
  const [query, setQuery] = useQuery();
  const [adding, setAdding] = useState(false);
  const search = useDebounced(query.q ?? "");
  const network = query.network ?? "";
  const state = (query.state ?? "") as State | "";
  const silent = query.silent === "yes";
  const sort = (query.sort ?? "name") as Sort;
  const filter = { search, network, state, silent, sort };
  const pages = usePages(filter);
  const networks = useNetworks();
  const sensors = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/sensors", {
          signal,
          params: {
            query: {
              limit: PAGE_SIZE,
              sort,
              ...(search !== "" && { q: search }),
              ...(network !== "" && { network }),
              ...(state !== "" && { configuration_state: state }),
              ...(silent && { silent_since: silentSince() }),
              ...(pages.cursor !== undefined && { cursor: pages.cursor }),
            },
          },
        }),
      ),
    [filter, pages.cursor],
  );
  const counts = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/sensors/summary", {
          signal,
          params: { query: { silent_since: silentSince(), ...(network !== "" && { network }) } },
        }),
      ),
    [network],
    COUNTS_MS,
  );
  const items = sensors.data?.items ?? [];
  const activity = useActivity(items.map((sensor) => sensor.identifier));
  const refresh = useThrottled(sensors.reload, REFRESH_MS);
  useStream("/api/v1/streams/sensors", {
    onEvent(name, data) {
      if (name === "activity") {
        activity.apply(data as Schemas["FleetChange"]);
        refresh();
      }
    },
    onOpen(isReconnect) {
      if (!isReconnect) return;
      activity.reload();
      sensors.reload();
    },
  });
  const isFiltered = search !== "" || network !== "" || state !== "" || silent;
  const canAdd = hasRole(caller, "admin");
  return (
    <>
      <div class="title">
        <h1>Fleet</h1>
        {canAdd && (
          <button type="button" class="primary" onClick={() => setAdding(true)}>
            Add a sensor
          </button>
        )}
      </div>
      <FleetCounts
        counts={counts.data}
        state={state}
        silent={silent}
        choose={(state, silent) => setQuery({ state, silent: silent ? "yes" : "" })}
      />
      <ProblemMessage problem={counts.problem} />
      <search class="filters">
        <label class="wide">
          Search sensors
          <input
            type="search"
            value={query.q ?? ""}
            maxLength={200}
            placeholder="Part of the name"
            onInput={(event) => setQuery({ q: event.currentTarget.value })}
          />
        </label>
        <NetworkSelect networks={networks} value={network} change={(network) => setQuery({ network })} />
        <label>
          Order
          <select value={sort} onChange={(event) => setQuery({ sort: event.currentTarget.value })}>
            <option value="name">Name</option>
            <option value="-last_seen">Last seen, newest first</option>
            <option value="last_seen">Last seen, oldest first</option>
          </select>
        </label>
      </search>
      <ProblemMessage problem={sensors.problem} retry={sensors.reload} />
      {sensors.data && items.length === 0 ? (
        <EmptyFleet
          isFiltered={isFiltered}
          canAdd={canAdd}
          clear={() => setQuery({ q: "", network: "", state: "", silent: "" })}
        />
      ) : (
        <SensorTable
          sensors={items}
          networks={networks}
          activity={activity}
          busy={sensors.loading && !sensors.data}
        />
      )}
      <Pager pages={pages} next={sensors.data?.next} />
      {adding && (
        <AddSensor
          networks={networks}
          close={() => setAdding(false)}
          added={() => {
            sensors.reload();
            counts.reload();
          }}
        />
      )}
    </>
  );
}
