// What is in flight, against its bounds.
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
          name="Window, messages"
          value={window.messages}
          most={window.max_messages}
          text={window.messages.toLocaleString()}
          bound={window.max_messages.toLocaleString()}
        />
        <Gauge
          name="Window, MiB"
          value={window.bytes}
          most={window.max_bytes}
          text={mebibytes(window.bytes)}
          bound={mebibytes(window.max_bytes)}
        />
        <Gauge
          name="Writers that write"
          value={writers.busy}
          most={writers.connections}
          text={String(writers.busy)}
          bound={String(writers.connections)}
        />
        <Gauge
          name="Last batch, items"
          value={batches.last_items}
          most={batches.max_items}
          text={batches.last_items.toLocaleString()}
          bound={batches.max_items.toLocaleString()}
        />
        <div>
          <dt>Queue</dt>
          <dd>
            {queue.messages.toLocaleString()} messages, {queue.items.toLocaleString()} items
          </dd>
        </div>
        <div>
          <dt>Batches</dt>
          <dd>
            {batches.committed.toLocaleString()} with {batches.items.toLocaleString()} items; the largest{" "}
            {batches.largest_items.toLocaleString()}
          </dd>
        </div>
      </dl>
    </section>
  );
}

interface GaugeProps {
  name: string;
  value: number;
  most: number;
  text: string;
  bound: string;
}

function Gauge({ name, value, most, text, bound }: GaugeProps) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        {text} of {bound}
        <meter min={0} max={most} value={value} aria-label={name} />
      </dd>
    </div>
  );
}
