// A stream of server-sent events, read by `fetch`, which can send the token. Comes back by itself when it
// is cut, and closes while nobody sees the page: a browser allows few connections to one service.
import { createParser } from "eventsource-parser";
import { useEffect, useRef } from "preact/hooks";
import { authorizedFetch } from "./client";
import { isAborted } from "./problem";

/** The service says something every 15 s; after this long without a byte the connection is dead. */
const SILENCE_MS = 45_000;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

export interface StreamEvents {
  onEvent(name: string, data: unknown): void;
  /** The stream is open; `again`: after it was cut, so that something may have been missed. */
  onOpen?(again: boolean): void;
}

export function useStream(path: string | null, events: StreamEvents): void {
  const latest = useRef(events);
  latest.current = events;
  useEffect(() => {
    if (path === null) return;
    const reader = new StreamReader(path, {
      onEvent: (name, data) => latest.current.onEvent(name, data),
      onOpen: (again) => latest.current.onOpen?.(again),
    });
    const follow = () => (document.hidden ? reader.stop() : reader.start());
    document.addEventListener("visibilitychange", follow);
    follow();
    return () => {
      document.removeEventListener("visibilitychange", follow);
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
    let wait = FIRST_WAIT_MS;
    while (!stopped.aborted) {
      try {
        const status = await this.read(stopped, () => {
          wait = FIRST_WAIT_MS;
        });
        // The right to read has ended, or what was read is deleted.
        if (status === 401 || status === 403 || status === 404) return;
      } catch (error) {
        if (stopped.aborted) return;
        if (!isAborted(error)) await Promise.resolve();
      }
      await new Promise((resolve) => setTimeout(resolve, wait * (0.5 + Math.random() / 2)));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  private async read(stopped: AbortSignal, opened: () => void): Promise<number> {
    const cut = new AbortController();
    const stop = () => cut.abort();
    stopped.addEventListener("abort", stop);
    let silence = setTimeout(stop, SILENCE_MS);
    try {
      const request = new Request(this.path, { signal: cut.signal, cache: "no-store" });
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
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE_MS);
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(silence);
      stopped.removeEventListener("abort", stop);
    }
  }
}
