// Shown instead of the table if there are no sensors.
interface Props {
  isFiltered: boolean;
  canAdd: boolean;
  clear: () => void;
}

export function EmptyFleet({ isFiltered, canAdd, clear }: Props) {
  if (isFiltered) {
    return (
      <section class="empty">
        <p>No sensor matches.</p>
        <button type="button" onClick={clear}>
          Show all sensors
        </button>
      </section>
    );
  }
  return (
    <section class="empty">
      <p>There are no sensors yet.</p>
      <p>
        {canAdd
          ? "Add a sensor above, or run simulated sensors:"
          : "An admin can add sensors, or run simulated sensors:"}
      </p>
      <pre class="command">tributary simulate --sensors 20 --rate 1 --duration 1h</pre>
    </section>
  );
}
