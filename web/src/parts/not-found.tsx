// An address that no view has.
export function NotFound() {
  return (
    <section class="empty">
      <h1>Nothing here</h1>
      <p>
        No view has this address. <a href="/">Go to the fleet</a>
      </p>
    </section>
  );
}
