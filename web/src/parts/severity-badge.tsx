// The severity of a log message, with a colour.
import type { Schemas } from "../api/client";

export function SeverityBadge({ severity }: { severity: Schemas["Severity"] }) {
  return <span class={`severity ${severity}`}>{severity}</span>;
}
