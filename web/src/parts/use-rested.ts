// A value that follows another once that has rested: a search does not ask with every letter.
import { useEffect, useState } from "preact/hooks";

const REST_MS = 200;

export function useRested<T>(value: T): T {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(() => value), REST_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
}
