// The field for a name, of as many characters as the API takes.
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
