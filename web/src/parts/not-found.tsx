// Shown for an unknown address.
export function NotFound() {
  return (
    <section class="empty">
      <h1>Page not found</h1>
      <p>
        There is no page at this address. <a href="/">Go to the fleet</a>
      </p>
    </section>
  );
}
