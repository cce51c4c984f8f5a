// The sensor's log messages, updated live.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { type LogFilterState, LogFilters, NO_LOG_FILTER } from "../parts/log-filters";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { SeverityBadge } from "../parts/severity-badge";
import { Time } from "../parts/time";
import { useDebounced } from "../parts/use-debounced";
import { useResource, useThrottled } from "../parts/use-resource";
import { type Feed, useFeed } from "./feed";

const PAGE_SIZE = 20;
const REFRESH_MS = 1_000;

interface Props {
  sensor: string;
  feed: Feed;
}

export function Logs({ sensor, feed }: Props) {
  const [filter, setFilter] = useState<LogFilterState>(NO_LOG_FILTER);
  const text = useDebounced(filter.text);
  const { severities } = filter;
  const pages = usePages([sensor, severities, text]);
  const messages = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/sensors/{identifier}/log-messages", {
          signal,
          params: {
            path: { identifier: sensor },
            query: {
              limit: PAGE_SIZE,
              ...(severities.length > 0 && { severity: severities }),
              ...(text !== "" && { text }),
              ...(pages.cursor && { cursor: pages.cursor }),
            },
          },
        }),
      ),
    [sensor, severities, text, pages.cursor],
  );
  const refresh = useThrottled(messages.reload, REFRESH_MS);
  useFeed(feed, "log_message", refresh);
  useFeed(feed, "reconnected", messages.reload);
  return (
    <section aria-labelledby="logs">
      <h2 id="logs">Logs</h2>
      <LogFilters filter={filter} change={setFilter} />
      <ProblemMessage problem={messages.problem} />
      {messages.data?.items.length === 0 ? (
        <p class="quiet">No log messages{filter === NO_LOG_FILTER ? " yet" : " match"}.</p>
      ) : (
        <ul class="log">
          {messages.data?.items.map((message) => (
            <LogLine key={`${message.timestamp} ${message.subject} ${message.details}`} message={message} />
          ))}
        </ul>
      )}
      <Pager pages={pages} next={messages.data?.next} />
    </section>
  );
}

function LogLine({ message }: { message: Schemas["LogMessage"] }) {
  return (
    <li class={`log-line ${message.severity}`}>
      <Time at={message.creation_timestamp} as="short" />
      <SeverityBadge severity={message.severity} />
      <span class="subject">{message.subject}</span>
      {message.details && <span class="details">{message.details}</span>}
    </li>
  );
}
