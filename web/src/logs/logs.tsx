// The log messages of all sensors, newest first, updated live.
import { body, client, type Schemas } from "../api/client";
import { useStream } from "../api/stream";
import { ExampleMessage } from "../parts/example-message";
import { LogFilters } from "../parts/log-filters";
import { NetworkSelect } from "../parts/network-select";
import { useNetworks } from "../parts/networks";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { useQuery } from "../parts/query";
import { useDebounced } from "../parts/use-debounced";
import { useResource, useThrottled } from "../parts/use-resource";
import { LogTable } from "./log-table";
import { TimeFilter } from "./time-filter";

const PAGE_SIZE = 100;
const REFRESH_MS = 2_000;

type Severity = Schemas["Severity"];

export function Logs() {
  const [query, setQuery] = useQuery();
  const severities = (query.severity ?? "").split(",").filter((it) => it !== "") as Severity[];
  const text = useDebounced(query.text ?? "");
  const network = query.network ?? "";
  const { from = "", to = "" } = query;
  const filter = { severities, text, network, from, to };
  const networks = useNetworks();
  const pages = usePages(filter);
  const messages = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/log-messages", {
          signal,
          params: {
            query: {
              limit: PAGE_SIZE,
              ...(severities.length > 0 && { severity: severities }),
              ...(text !== "" && { text }),
              ...(network !== "" && { network }),
              ...(from !== "" && { from }),
              ...(to !== "" && { to }),
              ...(pages.cursor && { cursor: pages.cursor }),
            },
          },
        }),
      ),
    [filter, pages.cursor],
  );
  const refresh = useThrottled(messages.reload, REFRESH_MS);
  // Late messages belong between older ones, so the page is reloaded and new messages are not just prepended.
  useStream("/api/v1/streams/sensors", {
    onEvent(name, data) {
      if (name === "activity" && (data as Schemas["FleetChange"]).totals.length > 0) refresh();
    },
    onOpen: (isReconnect) => isReconnect && messages.reload(),
  });
  const isFiltered = severities.length > 0 || text !== "" || network !== "" || from !== "" || to !== "";
  const items = messages.data?.items;
  return (
    <>
      <h1>Logs</h1>
      <LogFilters
        filter={{ severities, text: query.text ?? "" }}
        change={(next) => setQuery({ severity: next.severities.join(","), text: next.text })}
      />
      <div class="filters">
        <NetworkSelect networks={networks} value={network} change={(network) => setQuery({ network })} />
        <TimeFilter from={from} to={to} change={setQuery} />
      </div>
      <ProblemMessage problem={messages.problem} retry={messages.reload} />
      {items && items.length === 0 ? (
        <section class="empty">
          <p>
            {isFiltered
              ? "No log message matches."
              : "There are no log messages yet. A sensor publishes a log message like this:"}
          </p>
          {!isFiltered && <ExampleMessage kind="log-messages" sensor="<identifier>" />}
        </section>
      ) : (
        <LogTable messages={items ?? []} busy={!items} />
      )}
      <Pager pages={pages} next={messages.data?.next} />
    </>
  );
}
