// The measurements of the sensor: a chart of each numeric attribute, and a table of the other attributes.
import { useMemo, useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { nowSeconds } from "../parts/clock";
import { ExampleMessage } from "../parts/example-message";
import { ProblemMessage } from "../parts/problem-message";
import { useResource } from "../parts/use-resource";
import { ExportButton } from "./export-button";
import { type Feed, useFeed } from "./feed";
import { LastValues } from "./last-values";
import { type LastValuesByName, withMeasurement } from "./last-values-by-name";
import { type LiveValue, NumberChart } from "./number-chart";
import { OtherAttributes } from "./other-attributes";
import { bounds, PRESETS, type Range } from "./range";
import { RangePicker } from "./range-picker";
import { pointsOf } from "./series";
import { useRevisionMarks } from "./use-revision-marks";

/** The maximum of the API. */
const ATTRIBUTES_PER_REQUEST = 8;

/** Further live values are not kept in the page; they are loaded with the next range. */
const MAX_LIVE = 5_000;

/** Not every measurement has all attributes: last values are searched in this many measurements. */
const LAST_VALUES_FROM = 50;

/** The shortest range with values: a sensor that was silent for days has none in the last hour. */
function presetFor(attributes: Schemas["Attribute"][]): number {
  const last = Math.max(...attributes.map((it) => Date.parse(it.last_creation_timestamp)));
  const age = nowSeconds() - last / 1_000;
  const preset = PRESETS.find(({ seconds }) => age < seconds);
  return (preset ?? PRESETS[0]).seconds;
}

interface Props {
  sensor: string;
  feed: Feed;
  /** In seconds. Measurements that are further ahead of the current time come from a wrong clock. */
  futureTolerance: number;
}

const escaped = (name: string) => name.replace(/[\\,]/g, "\\$&");

export function Measurements({ sensor, feed, futureTolerance }: Props) {
  const futureBegins = () => Math.ceil(nowSeconds()) + futureTolerance;
  const [chosen, setRange] = useState<Range | null>(null);
  const attributes = useResource(
    (signal) =>
      body(
        client.GET("/api/v1/sensors/{identifier}/attributes", {
          signal,
          params: { path: { identifier: sensor } },
        }),
      ),
    [sensor],
  );
  const known = attributes.data?.items ?? [];
  const range = chosen ?? { last: presetFor(known) };
  const numeric = known.filter(({ types }) => types.includes("number")).map(({ name }) => name);
  const others = known.filter(({ types }) => !types.includes("number"));
  const shown = useMemo(() => bounds(range, Math.ceil(nowSeconds())), [JSON.stringify(range)]);
  const charts = useResource(
    async (signal) => {
      const groups: string[][] = [];
      for (let at = 0; at < numeric.length; at += ATTRIBUTES_PER_REQUEST) {
        groups.push(numeric.slice(at, at + ATTRIBUTES_PER_REQUEST));
      }
      const read = (names: string[]) =>
        body(
          client.GET("/api/v1/sensors/{identifier}/measurements/aggregates", {
            signal,
            params: {
              path: { identifier: sensor },
              query: {
                attributes: names.map(escaped).join(","),
                bucket: `${shown.bucket}s`,
                from: shown.from,
                // Without `to`, values from a fast clock are included.
                ...(!shown.isLive && { to: shown.to }),
              },
            },
          }),
        );
      const started = performance.now();
      const pages = await Promise.all(groups.map(read));
      // Keep live values that arrived during the load: the response may not contain them.
      setLive((live) => live.filter(({ arrivedAt }) => arrivedAt >= started));
      return {
        bounds: shown,
        points: new Map(
          numeric.map((name, at) => [
            name,
            pointsOf(pages[Math.floor(at / ATTRIBUTES_PER_REQUEST)]?.items ?? [], name),
          ]),
        ),
      };
    },
    [sensor, numeric, shown],
  );
  const [live, setLive] = useState<LiveValue[]>([]);
  const [last, setLast] = useState<LastValuesByName>(new Map());
  const newest = useResource(
    async (signal) => {
      const read = (query: { to?: number }) => {
        const params = { path: { identifier: sensor }, query: { limit: LAST_VALUES_FROM, ...query } };
        return body(client.GET("/api/v1/sensors/{identifier}/measurements", { signal, params }));
      };
      // Measurements in the future would hide newer ones.
      let page = await read({ to: futureBegins() });
      if (page.items.length === 0) page = await read({});
      const begins = futureBegins();
      setLast((last) => page.items.reduceRight((last, item) => withMeasurement(last, item, begins), last));
      return page.items.length;
    },
    [sensor],
  );
  useFeed(feed, "measurement", (measurement) => {
    setLast((last) => withMeasurement(last, measurement, futureBegins()));
    setLive((live) =>
      live.length < MAX_LIVE ? [...live, { measurement, arrivedAt: performance.now() }] : live,
    );
    const names = Object.keys(measurement.value);
    if (attributes.data && names.some((name) => !known.some((it) => it.name === name))) attributes.reload();
  });
  useFeed(feed, "reconnected", () => {
    attributes.reload();
    charts.reload();
    newest.reload();
  });
  const marks = useRevisionMarks(sensor, feed);
  const isEmpty = attributes.data && known.length === 0 && last.size === 0;
  return (
    <section aria-labelledby="measurements">
      <div class="title">
        <h2 id="measurements">Measurements</h2>
        <ExportButton sensor={sensor} from={shown.from} to={shown.to} />
      </div>
      <RangePicker range={range} bounds={shown} change={setRange} />
      <ProblemMessage problem={attributes.problem ?? charts.problem ?? newest.problem} />
      {isEmpty && (
        <div class="empty">
          <p>No measurements in the last 28 days. The sensor publishes measurements like this:</p>
          <ExampleMessage kind="measurements" sensor={sensor} />
        </div>
      )}
      <div class="charts" aria-busy={charts.loading}>
        {numeric.map((name) => (
          <NumberChart
            key={name}
            name={name}
            bounds={charts.data?.bounds ?? shown}
            points={charts.data?.points.get(name)}
            live={live}
            marks={marks}
            select={setRange}
          />
        ))}
      </div>
      {last.size > 0 && <LastValues values={last} futureBegins={futureBegins()} />}
      {others.length > 0 && <OtherAttributes attributes={others} last={last} />}
    </section>
  );
}
