// Data that is loaded from the service. It is reloaded when a dependency changes, when the connection is restored, on
// demand, and optionally at an interval. The previous data stays visible during a reload.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { isAborted, type Problem, problemOf } from "../api/problem";
import { useStore } from "../store";
import { connection } from "./connection";

/** The delay before a failed load is retried. */
const RETRY_MS = 3_000;

export interface Resource<T> {
  data: T | undefined;
  problem: Problem | null;
  loading: boolean;
  reload(): void;
}

export function useResource<T>(
  load: (signal: AbortSignal) => Promise<T>,
  dependencies: readonly unknown[],
  intervalMs?: number,
): Resource<T> {
  const { generation } = useStore(connection);
  const [round, setRound] = useState(0);
  const [state, setState] = useState<Omit<Resource<T>, "reload">>({
    data: undefined,
    problem: null,
    loading: true,
  });
  const key = JSON.stringify(dependencies);
  const shownKey = useRef(key);
  useEffect(() => {
    const abort = new AbortController();
    let again: ReturnType<typeof setTimeout> | undefined;
    const later = (ms: number) => {
      again = setTimeout(() => setRound((round) => round + 1), ms);
    };
    const isChanged = shownKey.current !== key;
    shownKey.current = key;
    setState(({ data, problem }) => ({
      data: isChanged ? undefined : data,
      problem: isChanged ? null : problem,
      loading: true,
    }));
    load(abort.signal).then(
      (data) => {
        if (abort.signal.aborted) return;
        setState({ data, problem: null, loading: false });
        if (intervalMs !== undefined) later(intervalMs);
      },
      (error) => {
        if (abort.signal.aborted || isAborted(error)) return;
        const problem = problemOf(error);
        setState(({ data }) => ({ data, problem, loading: false }));
        // After status 0, the data is reloaded when the connection is restored.
        if (problem.isTemporary && problem.status !== 0) later(RETRY_MS);
        else if (intervalMs !== undefined) later(intervalMs);
      },
    );
    return () => {
      abort.abort();
      clearTimeout(again);
    };
  }, [key, generation, round]);
  const reload = useCallback(() => setRound((round) => round + 1), []);
  return { ...state, reload };
}

/** Returns a function that runs `call` immediately, and further calls at most once per `ms`. */
export function useThrottled(call: () => void, ms: number): () => void {
  const latest = useRef(call);
  latest.current = call;
  const waiting = useRef<ReturnType<typeof setTimeout> | null>(null);
  const isRequested = useRef(false);
  useEffect(
    () => () => {
      if (waiting.current !== null) clearTimeout(waiting.current);
    },
    [],
  );
  return useCallback(() => {
    if (waiting.current !== null) {
      isRequested.current = true;
      return;
    }
    const run = () => {
      isRequested.current = false;
      latest.current();
      waiting.current = setTimeout(() => {
        waiting.current = null;
        if (isRequested.current) run();
      }, ms);
    };
    run();
  }, [ms]);
}
