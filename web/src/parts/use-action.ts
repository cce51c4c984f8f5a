// Runs an action of the user, and provides its progress and the problem of the last run.
import { useCallback, useState } from "preact/hooks";
import { type Problem, problemOf } from "../api/problem";

export interface Action {
  busy: boolean;
  problem: Problem | null;
  run(act: () => Promise<void>): Promise<void>;
  clear(): void;
}

export function useAction(): Action {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const run = useCallback(async (act: () => Promise<void>) => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
    } catch (error) {
      setProblem(problemOf(error));
    } finally {
      setBusy(false);
    }
  }, []);
  const clear = useCallback(() => setProblem(null), []);
  return { busy, problem, run, clear };
}
