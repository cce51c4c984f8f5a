// The table of the sensor's heartbeats, which acknowledge revisions.
import { body, client } from "../api/client";
import { Pager, usePages } from "../parts/pager";
import { ProblemMessage } from "../parts/problem-message";
import { Scrolls } from "../parts/scrolls";
import { Time } from "../parts/time";
import { useResource, useThrottled } from "../parts/use-resource";
import { type Feed, useFeed } from "./feed";

const PAGE_SIZE = 10;
const REFRESH_MS = 2_000;

interface Props {
  sensor: string;
  feed: Feed;
}

export function Heartbeats({ sensor, feed }: Props) {
  const pages = usePages(sensor);
  const heartbeats = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/sensors/{identifier}/heartbeats", {
          signal,
          params: {
            path: { identifier: sensor },
            query: { limit: PAGE_SIZE, ...(pages.cursor && { cursor: pages.cursor }) },
          },
        }),
      ),
    [sensor, pages.cursor],
  );
  const refresh = useThrottled(heartbeats.reload, REFRESH_MS);
  useFeed(feed, "heartbeat", refresh);
  useFeed(feed, "reconnected", heartbeats.reload);
  const items = heartbeats.data?.items ?? [];
  return (
    <section aria-labelledby="heartbeats">
      <h2 id="heartbeats">Heartbeats</h2>
      <ProblemMessage problem={heartbeats.problem} />
      {heartbeats.data && items.length === 0 && <p class="quiet">No heartbeats yet.</p>}
      {items.length > 0 && (
        <Scrolls labelledBy="heartbeats">
          <table class="small" aria-labelledby="heartbeats">
            <thead>
              <tr>
                <th scope="col">Sent</th>
                <th scope="col">Received</th>
                <th scope="col">Revision</th>
                <th scope="col" title="Whether the sensor has applied the revision">
                  Success
                </th>
              </tr>
            </thead>
            <tbody>
              {items.map((it) => (
                <tr
                  key={`${it.timestamp} ${it.revision} ${it.success}`}
                  class={it.success ? undefined : "failed-row"}
                >
                  <td>
                    <Time at={it.creation_timestamp} as="short" />
                  </td>
                  <td>
                    <Time at={it.receipt_timestamp} as="short" />
                  </td>
                  <td>{it.revision ?? "none"}</td>
                  <td>{it.success ? "yes" : "no"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scrolls>
      )}
      <Pager pages={pages} next={heartbeats.data?.next} />
    </section>
  );
}
