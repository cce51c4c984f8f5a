// What went wrong with a request, as the service says it (RFC 9457).

export class Problem extends Error {
  constructor(
    readonly status: number,
    /** A sentence. */
    readonly detail: string,
    readonly requestId: string | null,
    /** The member of the body at fault, as a JSON pointer. */
    readonly pointer: string | null = null,
  ) {
    super(detail);
  }

  static of(status: number, body: unknown, requestId: string | null): Problem {
    const members = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
    const text = (name: string) => (typeof members[name] === "string" ? (members[name] as string) : null);
    const parts = [text("title"), text("detail")].filter((part) => part !== null);
    const detail = parts.join(": ") || `The service answered with status ${status}.`;
    return new Problem(status, detail, text("request_id") ?? requestId, text("pointer"));
  }

  /** Of a request that got no answer. */
  static unreachable(): Problem {
    return new Problem(0, "The service cannot be reached.", null);
  }

  /** Whether the same request may succeed later. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503;
  }
}

export function problemOf(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(-1, String(error), null);
}

/** Whether the request was given up by the page itself. */
export function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
