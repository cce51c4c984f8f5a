// Adds a sensor, and shows the topic and an example message.
import { useState } from "preact/hooks";
import { body, client } from "../api/client";
import { CopyButton } from "../parts/copy-button";
import { Dialog } from "../parts/dialog";
import { ExampleMessage, useTopic } from "../parts/example-message";
import { FormDialog } from "../parts/form-dialog";
import { NameField } from "../parts/name-field";
import { NetworkOptions } from "../parts/network-options";
import type { Network } from "../parts/networks";

interface Props {
  networks: Network[];
  close: () => void;
  added: () => void;
}

export function AddSensor({ networks, close, added }: Props) {
  const [name, setName] = useState("");
  const [identifier, setIdentifier] = useState("");
  const [network, setNetwork] = useState("");
  const [created, setCreated] = useState<string | null>(null);
  const add = async () => {
    const sensor = await body(
      client.POST("/api/v1/sensors", {
        body: { name, ...(identifier !== "" && { identifier }), ...(network !== "" && { network }) },
      }),
    );
    setCreated(sensor.identifier);
    added();
  };
  if (created !== null) {
    return (
      <Dialog title={`Sensor ${name} added`} close={close}>
        <AddedSensor sensor={created} />
        <footer>
          <a class="button primary" href={`/sensors/${created}`} onClick={close}>
            Open the sensor
          </a>
        </footer>
      </Dialog>
    );
  }
  return (
    <FormDialog title="Add a sensor" submitName="Add" submit={add} close={close}>
      <NameField value={name} change={setName} />
      <label>
        Identifier
        <input
          value={identifier}
          placeholder="Generated if empty"
          spellcheck={false}
          onInput={(event) => setIdentifier(event.currentTarget.value.trim())}
        />
        <small>Enter a UUID if the sensor already uses one in its topics</small>
      </label>
      {networks.length > 1 && (
        <label>
          Network
          <select value={network} onChange={(event) => setNetwork(event.currentTarget.value)}>
            <option value="">Default</option>
            <NetworkOptions networks={networks} />
          </select>
        </label>
      )}
    </FormDialog>
  );
}

function AddedSensor({ sensor }: { sensor: string }) {
  const topic = useTopic("measurements", sensor);
  if (topic === null) return null;
  return (
    <>
      <p>The sensor can now publish measurements at QoS 1 to this topic:</p>
      <p class="copied">
        <code>{topic}</code>
        <CopyButton text={topic} />
      </p>
      <p>For example:</p>
      <ExampleMessage kind="measurements" sensor={sensor} />
    </>
  );
}
