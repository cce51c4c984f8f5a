// One revision of a configuration, with its state.
import type { Schemas } from "../api/client";
import { StateBadge } from "../parts/state-badge";

interface Props {
  title: string;
  configuration: Schemas["Configuration"];
}

export function ConfigurationPanel({ title, configuration }: Props) {
  return (
    <article class="panel">
      <h3>
        {title}: revision {configuration.revision} <StateBadge state={configuration.state} />
      </h3>
      <pre>{JSON.stringify(configuration.configuration, null, 2)}</pre>
      {configuration.problem && <p class="failed-text">Not published: {configuration.problem}</p>}
    </article>
  );
}
