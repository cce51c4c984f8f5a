// Shows the selected time zone, and switches it.
import { useStore } from "../store";
import { LOCAL_ZONE, toggleZone, zone } from "./zone";

export function ZoneSwitch() {
  const shown = useStore(zone);
  if (LOCAL_ZONE === "UTC") return <span class="zone">UTC</span>;
  const other = shown === "UTC" ? LOCAL_ZONE : "UTC";
  return (
    <button type="button" class="zone plain" onClick={toggleZone} title={`Show times in ${other}`}>
      {shown}
    </button>
  );
}
