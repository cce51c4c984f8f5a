// A table that may be wider than the screen: it scrolls by itself, by keyboard too.
import type { ComponentChildren } from "preact";

interface Props {
  /** The identifier of its title. */
  labelledBy: string;
  children: ComponentChildren;
}

export function Scrolls({ labelledBy, children }: Props) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: it is no group of inputs
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keyboard
    <div class="scrolls" role="group" aria-labelledby={labelledBy} tabIndex={0}>
      {children}
    </div>
  );
}
