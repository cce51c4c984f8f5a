// Buttons that edit and delete the sensor.

import { useState } from "preact/hooks";
import { useLocation } from "preact-iso";
import { body, client, type Schemas } from "../api/client";
import { Confirm } from "../parts/confirm";
import type { Network } from "../parts/networks";
import { EditSensor } from "./edit-sensor";

interface Props {
  sensor: Schemas["SensorDetail"];
  networks: Network[];
  changed: () => void;
}

export function Manage({ sensor, networks, changed }: Props) {
  const [open, setOpen] = useState<"edit" | "delete" | null>(null);
  const { route } = useLocation();
  const close = () => setOpen(null);
  const { identifier } = sensor;
  return (
    <div class="buttons">
      <button type="button" onClick={() => setOpen("edit")}>
        Edit
      </button>
      <button type="button" class="danger" onClick={() => setOpen("delete")}>
        Delete
      </button>
      {open === "edit" && <EditSensor sensor={sensor} networks={networks} close={close} changed={changed} />}
      {open === "delete" && (
        <Confirm
          title="Delete sensor"
          text="The sensor will be deleted with all its measurements, log messages, heartbeats and configurations. This cannot be undone."
          typed={sensor.name}
          actName="Delete"
          close={close}
          act={async () => {
            await body(client.DELETE("/api/v1/sensors/{identifier}", { params: { path: { identifier } } }));
            route("/");
          }}
        />
      )}
    </div>
  );
}
