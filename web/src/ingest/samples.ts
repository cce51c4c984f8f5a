// Samples of the ingest counters over the last 10 minutes: read every 2 s while the page is visible, and kept while
// the dashboard is open.
import { useEffect } from "preact/hooks";
import { authorizedFetch } from "../api/client";
import { nowSeconds } from "../parts/clock";
import { createStore, useStore } from "../store";
import { type Counters, parseMetrics } from "./metrics";

export interface Sample {
  /** Unix seconds. */
  at: number;
  counters: Counters;
}

const INTERVAL_MS = 2_000;
const RETENTION_S = 600;

const samples = createStore<readonly Sample[]>([]);

export function useSamples(): readonly Sample[] {
  useEffect(() => {
    const abort = new AbortController();
    const read = async () => {
      if (document.hidden) return;
      try {
        const response = await authorizedFetch(new Request("/metrics", { signal: abort.signal }));
        if (!response.ok) return;
        const at = nowSeconds();
        const counters = parseMetrics(await response.text());
        const recent = samples.get().filter((sample) => at - sample.at < RETENTION_S);
        // A smaller count means that the service was restarted.
        const isSameProcess = (recent.at(-1)?.counters.received ?? 0) <= counters.received;
        samples.set([...(isSameProcess ? recent : []), { at, counters }]);
      } catch {
        // The banner shows that the connection is lost; the next interval retries.
      }
    };
    void read();
    const timer = setInterval(() => void read(), INTERVAL_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, []);
  return useStore(samples);
}
