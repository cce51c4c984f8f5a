// Something that is read from the service: it is read again when what it depends on changes, when the
// connection comes back, on demand, and, where asked, every so often. What was read before stays visible.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { isAborted, type Problem, problemOf } from "../api/problem";
import { useStore } from "../store";
import { connection } from "./connection";

/** What cannot be read now is tried again after so long. */
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
  everyMs?: number,
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
    const isOther = shownKey.current !== key;
    shownKey.current = key;
    setState(({ data, problem }) => ({
      data: isOther ? undefined : data,
      problem: isOther ? null : problem,
      loading: true,
    }));
    load(abort.signal).then(
      (data) => {
        if (abort.signal.aborted) return;
        setState({ data, problem: null, loading: false });
        if (everyMs !== undefined) later(everyMs);
      },
      (error) => {
        if (abort.signal.aborted || isAborted(error)) return;
        const problem = problemOf(error);
        setState(({ data }) => ({ data, problem, loading: false }));
        // The connection's own retries cover status 0.
        if (problem.isPassing && problem.status !== 0) later(RETRY_MS);
        else if (everyMs !== undefined) later(everyMs);
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

/** Calls at once, and then at most once in the given time however often it is asked. */
export function useThrottled(call: () => void, ms: number): () => void {
  const latest = useRef(call);
  latest.current = call;
  const waiting = useRef<ReturnType<typeof setTimeout> | null>(null);
  const asked = useRef(false);
  useEffect(
    () => () => {
      if (waiting.current !== null) clearTimeout(waiting.current);
    },
    [],
  );
  return useCallback(() => {
    if (waiting.current !== null) {
      asked.current = true;
      return;
    }
    const run = () => {
      asked.current = false;
      latest.current();
      waiting.current = setTimeout(() => {
        waiting.current = null;
        if (asked.current) run();
      }, ms);
    };
    run();
  }, [ms]);
}
