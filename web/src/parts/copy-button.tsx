// Copies a text to the clipboard, and confirms it.
import { useState } from "preact/hooks";

const SHOWN_MS = 2_000;

export function CopyButton({ text }: { text: string }) {
  const [copied, setCopied] = useState<"" | "Copied" | "Cannot copy: select the text and copy it yourself">(
    "",
  );
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied("Copied");
    } catch {
      // A browser provides the clipboard only with HTTPS or on localhost.
      setCopied("Cannot copy: select the text and copy it yourself");
    }
    setTimeout(() => setCopied(""), SHOWN_MS);
  };
  return (
    <>
      <button type="button" onClick={() => void copy()}>
        Copy
      </button>
      <span role="status">{copied}</span>
    </>
  );
}
