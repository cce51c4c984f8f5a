// Ingest: the ledger of received items, rates and latencies, and the state of connections and batches.
import { body, client } from "../api/client";
import { ProblemMessage } from "../parts/problem-message";
import { Time } from "../parts/time";
import { useAction } from "../parts/use-action";
import { useResource } from "../parts/use-resource";
import { type Caller, hasRoleInAll } from "../session/session";
import { ConnectionTable } from "./connection-table";
import { Gauges } from "./gauges";
import { InstanceTable, totalLedger } from "./instance-table";
import { LedgerTable } from "./ledger-table";
import { RateCharts } from "./rate-charts";
import { useSamples } from "./samples";

const REFRESH_MS = 2_000;

export function Ingest({ caller }: { caller: Caller }) {
  const isAdmin = hasRoleInAll(caller, "admin");
  const status = useResource((signal) => body(client.GET("/api/v1/status", { signal })), [], REFRESH_MS);
  const ingest = useResource(
    async (signal) => (isAdmin ? body(client.GET("/api/v1/ingest", { signal })) : null),
    [isAdmin],
    REFRESH_MS,
  );
  const instances = useResource(
    async (signal) => (isAdmin ? (await body(client.GET("/api/v1/instances", { signal }))).items : null),
    [isAdmin],
    REFRESH_MS,
  );
  const samples = useSamples();
  const action = useAction();
  const shown = status.data;
  // With one instance, the tables of all instances are not shown.
  const group = instances.data && instances.data.length > 1 ? instances.data : null;
  const isPaused = shown?.ingest_paused_since != null;
  const toggle = () =>
    action.run(async () => {
      await body(isPaused ? client.POST("/api/v1/ingest/resume") : client.POST("/api/v1/ingest/pause"));
      status.reload();
      ingest.reload();
    });
  return (
    <>
      <div class="title">
        <h1>Ingest</h1>
        {isAdmin && shown && (
          <button
            type="button"
            class={isPaused ? "primary" : "danger"}
            disabled={action.busy}
            onClick={() => void toggle()}
          >
            {isPaused ? "Resume ingest" : "Pause ingest"}
          </button>
        )}
      </div>
      <p class="announcement" role="status">
        {isPaused && (
          <span class="failed-text">
            Paused <Time at={shown?.ingest_paused_since} />. The broker queues messages until ingest is
            resumed.
          </span>
        )}
      </p>
      <ProblemMessage problem={action.problem ?? status.problem ?? ingest.problem ?? instances.problem} />
      {shown && (
        <>
          {group && (
            <>
              <LedgerTable
                name="Ledger of all instances"
                ledger={totalLedger(group.map((it) => it.ledger))}
              />
              <InstanceTable instances={group} />
            </>
          )}
          <LedgerTable name={group ? "Ledger of this instance" : "Ledger"} ledger={shown.ledger} />
          <RateCharts samples={samples} />
          {ingest.data && <Gauges ingest={ingest.data} />}
          <ConnectionTable connections={shown.connections} />
          <p class="quiet">
            Version {shown.version} ({shown.commit}), started <Time at={shown.started_at} />
          </p>
        </>
      )}
    </>
  );
}
