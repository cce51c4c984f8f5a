// What ingest did in the last minutes: read every two seconds while somebody looks, and kept while the
// dashboard is open.
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

const EVERY_MS = 2_000;
const KEPT_S = 600;

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
        const recent = samples.get().filter((sample) => at - sample.at < KEPT_S);
        // A count that has become smaller is of another process.
        const isSame = (recent.at(-1)?.counters.received ?? 0) <= counters.received;
        samples.set([...(isSame ? recent : []), { at, counters }]);
      } catch {
        // The banner says that the connection is lost; the next round tries again.
      }
    };
    void read();
    const timer = setInterval(() => void read(), EVERY_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, []);
  return useStore(samples);
}
