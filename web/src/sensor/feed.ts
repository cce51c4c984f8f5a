// Distributes the events of the sensor's stream to the parts of its page, which share one connection.
import { useEffect, useRef } from "preact/hooks";
import type { Schemas } from "../api/client";

/** `reconnected`: the stream was interrupted, and events may be missing. */
interface Events {
  measurement: Schemas["Measurement"];
  log_message: Schemas["LogMessage"];
  heartbeat: Schemas["Heartbeat"];
  configuration: Schemas["StreamConfiguration"];
  reconnected: null;
}

type Listener = (name: string, data: unknown) => void;

export interface Feed {
  publish: Listener;
  subscribe(listener: Listener): () => void;
}

export function createFeed(): Feed {
  const listeners = new Set<Listener>();
  return {
    publish(name, data) {
      for (const listener of listeners) listener(name, data);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

export function useFeed<N extends keyof Events>(
  feed: Feed,
  name: N,
  listener: (event: Events[N]) => void,
): void {
  const latest = useRef(listener);
  latest.current = listener;
  useEffect(
    () =>
      feed.subscribe((published, data) => {
        if (published === name) latest.current(data as Events[N]);
      }),
    [feed, name],
  );
}
