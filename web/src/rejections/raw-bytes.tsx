// The bytes of a rejected message: as text if they are valid UTF-8, otherwise in hexadecimal.
import { useState } from "preact/hooks";
import type { Schemas } from "../api/client";

/** Only the first bytes are shown. */
const MAX_SHOWN = 4_096;
const PER_LINE = 16;

function hex(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += PER_LINE) {
    const line = [...bytes.subarray(at, at + PER_LINE)];
    const codes = line.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = line.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${codes.padEnd(PER_LINE * 3 - 1)}  ${text}`);
  }
  return lines.join("\n");
}

export function RawBytes({ raw }: { raw: Schemas["Raw"] }) {
  const isText = "raw" in raw;
  const [asHex, setHex] = useState(!isText);
  const bytes = isText
    ? new TextEncoder().encode(raw.raw)
    : Uint8Array.from(atob(raw.raw_base64), (character) => character.charCodeAt(0));
  const text = isText ? raw.raw : "";
  const shown = asHex ? hex(bytes.subarray(0, MAX_SHOWN)) : text.slice(0, MAX_SHOWN);
  return (
    <div class="raw">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a scroll area must be reachable by keyboard */}
      <pre tabIndex={0}>{shown === "" ? "(empty)" : shown}</pre>
      <p class="quiet">
        {bytes.length.toLocaleString()} bytes
        {bytes.length > MAX_SHOWN && `, of which the first ${MAX_SHOWN.toLocaleString()} are shown`}
        {isText && (
          <button type="button" class="plain" onClick={() => setHex(!asHex)}>
            {asHex ? "Show as text" : "Show in hexadecimal"}
          </button>
        )}
      </p>
    </div>
  );
}
