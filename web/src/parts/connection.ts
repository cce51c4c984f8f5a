// Whether the service is reachable. A lost connection is retried until it is restored; then `generation` is
// incremented, and all data shown is reloaded.
import { createStore } from "../store";

export interface Connection {
  lost: boolean;
  generation: number;
}

export const connection = createStore<Connection>({ lost: false, generation: 0 });

const RETRY_MS = 1_000;
let retrying = false;

export function connectionLost(): void {
  const now = connection.get();
  if (!now.lost) connection.set({ ...now, lost: true });
  if (!retrying) void retry();
}

export function connectionRestored(): void {
  const { lost, generation } = connection.get();
  if (lost) connection.set({ lost: false, generation: generation + 1 });
}

async function retry(): Promise<void> {
  retrying = true;
  while (connection.get().lost) {
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    try {
      if ((await fetch("/healthz", { cache: "no-store" })).ok) connectionRestored();
    } catch {
      // Still unreachable: the next round retries.
    }
  }
  retrying = false;
}
