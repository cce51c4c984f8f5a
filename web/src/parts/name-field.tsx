// The field for a name, with the maximum length of the API.
interface Props {
  value: string;
  change: (name: string) => void;
  autocomplete?: "off";
}

export function NameField({ value, change, autocomplete }: Props) {
  return (
    <label>
      Name
      <input
        required
        maxLength={200}
        autocomplete={autocomplete}
        value={value}
        onInput={(event) => change(event.currentTarget.value)}
      />
    </label>
  );
}
