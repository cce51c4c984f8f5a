// Checks whether the API accepts a text as a configuration, and finds what it changes. Pure functions.

export type Checked = { configuration: Record<string, unknown> } | { problem: string };

export function check(text: string, mayNest: boolean): Checked {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    return { problem: `This is not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    return { problem: 'A configuration must be a JSON object, such as {"interval_secs": 60}.' };
  }
  for (const [name, value] of Object.entries(parsed)) {
    if (!mayNest && typeof value === "object" && value !== null) {
      return {
        problem: `The value of "${name}" is nested: it must be a string, a number, a boolean or null.`,
      };
    }
  }
  return { configuration: parsed as Record<string, unknown> };
}

export interface Difference {
  name: string;
  /** Undefined if the member is added. */
  from: string | undefined;
  /** Undefined if the member is removed. */
  to: string | undefined;
}

export function differences(before: Record<string, unknown>, after: Record<string, unknown>): Difference[] {
  const text = (value: unknown) => (value === undefined ? undefined : JSON.stringify(value));
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .sort()
    .map((name) => ({ name, from: text(before[name]), to: text(after[name]) }))
    .filter(({ from, to }) => from !== to);
}
