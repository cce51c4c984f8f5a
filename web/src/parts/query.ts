// Keeps filters in the query of the address, so that a view can be reloaded, shared and bookmarked.

import { useCallback } from "preact/hooks";
import { useLocation } from "preact-iso";

export function useQuery(): [Record<string, string>, (changes: Record<string, string>) => void] {
  const { path, query, route } = useLocation();
  const change = useCallback(
    (changes: Record<string, string>) => {
      const next = new URLSearchParams(window.location.search);
      for (const [name, value] of Object.entries(changes)) {
        if (value === "") next.delete(name);
        else next.set(name, value);
      }
      const text = next.toString();
      route(text === "" ? path : `${path}?${text}`, true);
    },
    [path, route],
  );
  return [query, change];
}
