// A dialog that changes the sensor's name, network and metadata.
import { useState } from "preact/hooks";
import { body, client, type Schemas } from "../api/client";
import { FormDialog } from "../parts/form-dialog";
import { NameField } from "../parts/name-field";
import { NetworkOptions } from "../parts/network-options";
import type { Network } from "../parts/networks";

interface Props {
  sensor: Schemas["SensorDetail"];
  networks: Network[];
  close: () => void;
  changed: () => void;
}

function metadataProblem(text: string): string | null {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return null;
    return "Metadata must be a JSON object.";
  } catch (error) {
    return `This is not JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
}

export function EditSensor({ sensor, networks, close, changed }: Props) {
  const initial = JSON.stringify(sensor.metadata, null, 2);
  const [name, setName] = useState(sensor.name);
  const [network, setNetwork] = useState(sensor.network);
  const [metadata, setMetadata] = useState(initial);
  const problem = metadataProblem(metadata);
  const save = async () => {
    const { identifier } = sensor;
    await body(
      client.PATCH("/api/v1/sensors/{identifier}", {
        params: { path: { identifier } },
        body: {
          ...(name !== sensor.name && { name }),
          ...(network !== sensor.network && { network }),
          ...(metadata !== initial && { metadata: JSON.parse(metadata) }),
        },
      }),
    );
    changed();
    close();
  };
  return (
    <FormDialog title="Edit sensor" submitName="Save" ready={problem === null} submit={save} close={close}>
      <NameField value={name} change={setName} />
      {networks.length > 1 && (
        <label>
          Network
          <select value={network} onChange={(event) => setNetwork(event.currentTarget.value)}>
            <NetworkOptions networks={networks} />
          </select>
        </label>
      )}
      <label>
        Metadata (JSON)
        <textarea
          rows={5}
          spellcheck={false}
          value={metadata}
          onInput={(event) => setMetadata(event.currentTarget.value)}
        />
      </label>
      <p class="failed-text" role="status">
        {problem}
      </p>
    </FormDialog>
  );
}
