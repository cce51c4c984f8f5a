// A scroll area for a table that may be wider than the screen; it can be scrolled by keyboard.
import type { ComponentChildren } from "preact";

interface Props {
  /** The element ID of the title. */
  labelledBy: string;
  children: ComponentChildren;
}

export function Scrolls({ labelledBy, children }: Props) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: this is not a group of inputs
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scroll area must be reachable by keyboard
    <div class="scrolls" role="group" aria-labelledby={labelledBy} tabIndex={0}>
      {children}
    </div>
  );
}
