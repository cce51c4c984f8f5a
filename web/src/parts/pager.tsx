// Pages of a list: the next page by the cursor of the response, previous pages by the cursors used before.
import { useState } from "preact/hooks";

export interface Pages {
  /** Undefined on the first page. */
  cursor: string | undefined;
  number: number;
  next(cursor: string): void;
  previous(): void;
}

/** Returns to the first page when the list changes. */
export function usePages(list: unknown): Pages {
  const key = JSON.stringify(list);
  const [state, setState] = useState<{ key: string; cursors: string[] }>({ key, cursors: [] });
  const cursors = state.key === key ? state.cursors : [];
  return {
    cursor: cursors.at(-1),
    number: cursors.length + 1,
    next: (cursor) => setState({ key, cursors: [...cursors, cursor] }),
    previous: () => setState({ key, cursors: cursors.slice(0, -1) }),
  };
}

export function Pager({ pages, next }: { pages: Pages; next: string | null | undefined }) {
  if (pages.number === 1 && !next) return null;
  return (
    <nav class="pager" aria-label="Pages">
      <button type="button" disabled={pages.number === 1} onClick={pages.previous}>
        Previous
      </button>
      <span>Page {pages.number}</span>
      <button type="button" disabled={!next} onClick={() => next && pages.next(next)}>
        Next
      </button>
    </nav>
  );
}
