// Shows an error: its text, and the request ID, with which more is found in the service's log.
import type { Problem } from "../api/problem";

interface Props {
  problem: Problem | null;
  retry?: () => void;
}

export function ProblemMessage({ problem, retry }: Props) {
  if (!problem) return null;
  return (
    <div class="problem" role="alert">
      <p>
        {problem.detail}
        {problem.pointer && (
          <>
            {" "}
            (at <code>{problem.pointer}</code>)
          </>
        )}
      </p>
      {problem.requestId && (
        <p class="request-id">
          Request ID <code>{problem.requestId}</code>
        </p>
      )}
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}
