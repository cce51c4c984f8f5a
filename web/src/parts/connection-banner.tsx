// Says that the service does not answer, for as long as it does not.
import { useStore } from "../store";
import { connection } from "./connection";

export function ConnectionBanner() {
  const { lost } = useStore(connection);
  return (
    <div class="connection" role="status" aria-live="polite">
      {lost && <p>No connection to the service. What you see may be old. Trying again …</p>}
    </div>
  );
}
