// A stream of server-sent events, read with `fetch`, which can send the token. It reconnects after an
// interruption, and is closed while the page is hidden, because a browser limits the connections per service.
import { createParser } from "eventsource-parser";
import { useEffect, useRef } from "preact/hooks";
import { authorizedFetch } from "./client";
import { isAborted } from "./problem";

/** The service sends a keep-alive every 15 s; after this time without a byte the connection counts as lost. */
const TIMEOUT_MS = 45_000;
const MIN_RETRY_MS = 500;
const MAX_RETRY_MS = 10_000;

export interface StreamEvents {
  onEvent(name: string, data: unknown): void;
  /** The stream is open; `isReconnect`: after an interruption, so that events may be missing. */
  onOpen?(isReconnect: boolean): void;
}

export function useStream(path: string | null, events: StreamEvents): void {
  const latest = useRef(events);
  latest.current = events;
  useEffect(() => {
    if (path === null) return;
    const reader = new StreamReader(path, {
      onEvent: (name, data) => latest.current.onEvent(name, data),
      onOpen: (isReconnect) => latest.current.onOpen?.(isReconnect),
    });
    const update = () => (document.hidden ? reader.stop() : reader.start());
    document.addEventListener("visibilitychange", update);
    update();
    return () => {
      document.removeEventListener("visibilitychange", update);
      reader.stop();
    };
  }, [path]);
}

class StreamReader {
  private running: AbortController | null = null;
  private lastId: string | null = null;
  private wasOpen = false;

  constructor(
    private readonly path: string,
    private readonly events: Required<StreamEvents>,
  ) {}

  start(): void {
    if (this.running) return;
    this.running = new AbortController();
    void this.run(this.running.signal);
  }

  stop(): void {
    this.running?.abort();
    this.running = null;
  }

  private async run(stopped: AbortSignal): Promise<void> {
    let wait = MIN_RETRY_MS;
    while (!stopped.aborted) {
      try {
        const status = await this.read(stopped, () => {
          wait = MIN_RETRY_MS;
        });
        // The token is no longer valid, the role does not allow the request, or the sensor was deleted.
        if (status === 401 || status === 403 || status === 404) return;
      } catch (error) {
        if (stopped.aborted) return;
        if (!isAborted(error)) await Promise.resolve();
      }
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, MAX_RETRY_MS);
    }
  }

  private async read(stopped: AbortSignal, opened: () => void): Promise<number> {
    const connection = new AbortController();
    const stop = () => connection.abort();
    stopped.addEventListener("abort", stop);
    let timer = setTimeout(stop, TIMEOUT_MS);
    try {
      const request = new Request(this.path, { signal: connection.signal, cache: "no-store" });
      if (this.lastId !== null) request.headers.set("Last-Event-ID", this.lastId);
      const response = await authorizedFetch(request);
      if (!response.ok || !response.body) return response.status;
      opened();
      this.events.onOpen(this.wasOpen);
      this.wasOpen = true;
      const parser = createParser({
        onEvent: ({ event, data, id }) => {
          if (id !== undefined) this.lastId = id;
          if (!stopped.aborted) this.events.onEvent(event ?? "message", JSON.parse(data));
        },
      });
      const bytes = response.body.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { done, value } = await bytes.read();
        if (done) return response.status;
        clearTimeout(timer);
        timer = setTimeout(stop, TIMEOUT_MS);
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(timer);
      stopped.removeEventListener("abort", stop);
    }
  }
}
