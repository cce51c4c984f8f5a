// Buttons that export the measurements of the selected range.
import { download } from "../parts/download";
import { ProblemMessage } from "../parts/problem-message";
import { useAction } from "../parts/use-action";

interface Props {
  sensor: string;
  from: number;
  to: number;
}

export function ExportButton({ sensor, from, to }: Props) {
  const action = useAction();
  const save = (format: "csv" | "ndjson") =>
    action.run(() =>
      download(
        `/api/v1/sensors/${sensor}/measurements/export?format=${format}&from=${from}&to=${to}`,
        `${sensor}.${format}`,
      ),
    );
  return (
    <div class="export">
      <button type="button" disabled={action.busy} onClick={() => void save("csv")}>
        Export CSV
      </button>
      <button type="button" disabled={action.busy} onClick={() => void save("ndjson")}>
        Export JSON Lines
      </button>
      <ProblemMessage problem={action.problem} />
    </div>
  );
}
