// Messages and batches in flight, with their limits.
import type { Schemas } from "../api/client";

const MEBIBYTE = 1 << 20;

export function Gauges({ ingest }: { ingest: Schemas["Ingest"] }) {
  const { window, queue, batches, writers } = ingest;
  const mebibytes = (bytes: number) =>
    (bytes / MEBIBYTE).toLocaleString(undefined, { maximumFractionDigits: 1 });
  return (
    <section aria-labelledby="in-flight">
      <h2 id="in-flight">In flight</h2>
      <dl class="facts gauges">
        <Gauge
          name="Unacknowledged messages"
          value={window.messages}
          max={window.max_messages}
          text={window.messages.toLocaleString()}
          limit={window.max_messages.toLocaleString()}
        />
        <Gauge
          name="Memory of unacknowledged messages, MiB"
          value={window.bytes}
          max={window.max_bytes}
          text={mebibytes(window.bytes)}
          limit={mebibytes(window.max_bytes)}
        />
        <Gauge
          name="Busy database writers"
          value={writers.busy}
          max={writers.connections}
          text={String(writers.busy)}
          limit={String(writers.connections)}
        />
        <Gauge
          name="Items in the last batch"
          value={batches.last_items}
          max={batches.max_items}
          text={batches.last_items.toLocaleString()}
          limit={batches.max_items.toLocaleString()}
        />
        <div>
          <dt>Waiting for a batch</dt>
          <dd>
            {queue.messages.toLocaleString()} messages, {queue.items.toLocaleString()} items
          </dd>
        </div>
        <div>
          <dt>Committed batches</dt>
          <dd>
            {batches.committed.toLocaleString()} with {batches.items.toLocaleString()} items; largest batch:{" "}
            {batches.largest_items.toLocaleString()} items
          </dd>
        </div>
      </dl>
    </section>
  );
}

interface GaugeProps {
  name: string;
  value: number;
  max: number;
  text: string;
  limit: string;
}

function Gauge({ name, value, max, text, limit }: GaugeProps) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {text} of {limit}
        <meter min={0} max={max} value={value} aria-label={name} />
      </dd>
    </div>
  );
}
