// How severe a log message is.
import type { Schemas } from "../api/client";

export function SeverityBadge({ severity }: { severity: Schemas["Severity"] }) {
  return <span class={`severity ${severity}`}>{severity}</span>;
}
