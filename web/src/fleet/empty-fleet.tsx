// What to do where there is no sensor to be seen.
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
      <p>There is no sensor yet.</p>
      <p>
        {canAdd
          ? "Add one above, or run a simulated fleet:"
          : "Whoever administers the service adds them, or runs a simulated fleet:"}
      </p>
      <pre class="command">tributary simulate --sensors 20 --rate 1 --duration 1h</pre>
    </section>
  );
}
