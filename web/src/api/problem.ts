// The error of a failed request, from the problem details (RFC 9457) of the service.

export class Problem extends Error {
  constructor(
    readonly status: number,
    /** A sentence for the user. */
    readonly detail: string,
    readonly requestId: string | null,
    /** The invalid member of the body, as a JSON pointer. */
    readonly pointer: string | null = null,
  ) {
    super(detail);
  }

  static of(status: number, body: unknown, requestId: string | null): Problem {
    const members = typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
    const text = (name: string) => (typeof members[name] === "string" ? (members[name] as string) : null);
    const parts = [text("title"), text("detail")].filter((part) => part !== null);
    const detail = parts.join(": ") || `The service returned status ${status}.`;
    return new Problem(status, detail, text("request_id") ?? requestId, text("pointer"));
  }

  /** The error of a request without a response. */
  static unreachable(): Problem {
    return new Problem(0, "The service is unreachable.", null);
  }

  /** Whether the same request may succeed later. */
  get isTemporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503;
  }
}

export function problemOf(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem(-1, String(error), null);
}

/** Whether the page aborted the request. */
export function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}
