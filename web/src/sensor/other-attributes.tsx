// The table of attributes that are not numeric, with their last values.
import type { Schemas } from "../api/client";
import { Scrolls } from "../parts/scrolls";
import { Time } from "../parts/time";
import type { LastValuesByName } from "./last-values-by-name";

interface Props {
  attributes: Schemas["Attribute"][];
  last: LastValuesByName;
}

export function OtherAttributes({ attributes, last }: Props) {
  const lastValue = (name: string) => (last.has(name) ? String(last.get(name)?.value) : "–");
  return (
    <Scrolls labelledBy="other-attributes">
      <table class="small">
        <caption id="other-attributes">Attributes that are not numeric</caption>
        <thead>
          <tr>
            <th scope="col">Attribute</th>
            <th scope="col">Type</th>
            <th scope="col">Last value</th>
            <th scope="col">First seen</th>
            <th scope="col">Last seen</th>
          </tr>
        </thead>
        <tbody>
          {attributes.map((attribute) => (
            <tr key={attribute.name}>
              <th scope="row">{attribute.name}</th>
              <td>{attribute.types.join(", ")}</td>
              <td>{lastValue(attribute.name)}</td>
              <td>
                <Time at={attribute.first_creation_timestamp} />
              </td>
              <td>
                <Time at={attribute.last_creation_timestamp} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scrolls>
  );
}
