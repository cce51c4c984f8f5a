// Returns a value after it has not changed for 200 ms, so that a search does not send a request per letter.
import { useEffect, useState } from "preact/hooks";

const DELAY_MS = 200;

export function useDebounced<T>(value: T): T {
  const [debounced, setDebounced] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setDebounced(() => value), DELAY_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return debounced;
}
