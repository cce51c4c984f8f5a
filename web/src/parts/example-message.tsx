// An example of a publish command of a sensor, for pages without data.
import { nowSeconds } from "./clock";
import { useSettings } from "./settings";

interface Props {
  kind: "measurements" | "log-messages";
  sensor: string;
}

/** `revision: null`: the sensor has no configuration from the service. */
const ITEMS = {
  measurements: { revision: null, timestamp: 0, value: { temperature: 21.5 } },
  "log-messages": { severity: "warning", revision: null, timestamp: 0, subject: "battery low" },
};

export function ExampleMessage({ kind, sensor }: Props) {
  const topic = useTopic(kind, sensor);
  if (topic === null) return null;
  const item = { ...ITEMS[kind], timestamp: Math.floor(nowSeconds()) };
  const message = JSON.stringify({ [kind.replace("-", "_")]: [item] });
  return <pre class="command">{`mosquitto_pub -q 1 -t ${topic} \\\n  -m '${message}'`}</pre>;
}

/** Null until the topic prefix of the service is known. */
export function useTopic(kind: Props["kind"], sensor: string): string | null {
  const prefix = useSettings()?.topic_prefix;
  if (prefix === undefined) return null;
  return prefix === "" ? `${kind}/${sensor}` : `${prefix}/${kind}/${sensor}`;
}
