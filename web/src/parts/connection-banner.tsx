// Shown while the service is unreachable.
import { useStore } from "../store";
import { connection } from "./connection";

export function ConnectionBanner() {
  const { lost } = useStore(connection);
  return (
    <div class="connection" role="status" aria-live="polite">
      {lost && <p>No connection to the service. The data shown may be out of date. Reconnecting …</p>}
    </div>
  );
}
