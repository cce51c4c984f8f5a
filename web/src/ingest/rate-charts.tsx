// Charts of rates and latencies over the last 10 minutes.
import { LineChart } from "./line-chart";
import { quantile } from "./metrics";
import type { Sample } from "./samples";

const MS = 1_000;

/** One value for each pair of consecutive samples. */
function between<T>(samples: readonly Sample[], value: (before: Sample, after: Sample) => T): T[] {
  return samples.slice(1).map((after, at) => value(samples[at] as Sample, after));
}

export function RateCharts({ samples }: { samples: readonly Sample[] }) {
  const times = between(samples, (_, after) => after.at);
  const rate = (name: "received" | "committed") =>
    between(
      samples,
      (before, after) => (after.counters[name] - before.counters[name]) / (after.at - before.at),
    );
  const latency = (name: "commit" | "puback", share: number) =>
    between(samples, (before, after) => {
      const seconds = quantile(before.counters[name], after.counters[name], share);
      return seconds === null ? null : seconds * MS;
    });
  return (
    <section aria-labelledby="rates">
      <h2 id="rates">Last 10 minutes</h2>
      <div class="charts">
        <LineChart
          name="Items per second"
          times={times}
          lines={[
            { label: "received", values: rate("received") },
            { label: "committed", values: rate("committed") },
          ]}
        />
        <LineChart
          name="Time from receipt to PUBACK (ms)"
          times={times}
          lines={[
            { label: "median", values: latency("puback", 0.5) },
            { label: "99th percentile", values: latency("puback", 0.99) },
          ]}
        />
        <LineChart
          name="Duration of a commit (ms)"
          times={times}
          lines={[
            { label: "median", values: latency("commit", 0.5) },
            { label: "99th percentile", values: latency("commit", 0.99) },
          ]}
        />
      </div>
    </section>
  );
}
