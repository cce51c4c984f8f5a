// Copies a text, and says that it has.
import { useState } from "preact/hooks";

const SHOWN_MS = 2_000;

export function CopyButton({ text }: { text: string }) {
  const [copied, setCopied] = useState<"" | "Copied" | "Select it and copy it by hand">("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied("Copied");
    } catch {
      // Without HTTPS a browser has no clipboard, but on the machine itself.
      setCopied("Select it and copy it by hand");
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
