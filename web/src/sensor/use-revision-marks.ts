// The times when the sensor applied a revision, for the marks in its charts.
import { body, client } from "../api/client";
import { useResource } from "../parts/use-resource";
import { type Feed, useFeed } from "./feed";

const MAX_MARKS = 100;

export interface RevisionMark {
  /** Unix seconds, by the sensor's clock. */
  at: number;
  revision: number;
}

export function useRevisionMarks(sensor: string, feed: Feed): RevisionMark[] {
  const { data, reload } = useResource(
    async (signal) => {
      const params = { path: { identifier: sensor }, query: { limit: MAX_MARKS } };
      const page = await body(client.GET("/api/v1/sensors/{identifier}/configurations", { signal, params }));
      return page.items.flatMap(({ revision, acknowledgement_timestamp: at, success }) =>
        at && success ? [{ at: Date.parse(at) / 1_000, revision }] : [],
      );
    },
    [sensor],
  );
  useFeed(feed, "configuration", reload);
  return data ?? [];
}
