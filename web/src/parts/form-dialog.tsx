// A dialog with a form. It allows one submission at a time, and shows the problem of the last attempt.
import type { ComponentChildren } from "preact";
import { Dialog } from "./dialog";
import { ProblemMessage } from "./problem-message";
import { useAction } from "./use-action";

interface Props {
  title: string;
  submitName: string;
  submitClass?: "primary" | "danger";
  /** Whether the input is valid. */
  ready?: boolean;
  submit: () => Promise<void>;
  close: () => void;
  children: ComponentChildren;
}

export function FormDialog({
  title,
  submitName,
  submitClass = "primary",
  ready = true,
  submit,
  close,
  children,
}: Props) {
  const action = useAction();
  return (
    <Dialog title={title} close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (ready) void action.run(submit);
        }}
      >
        {children}
        <ProblemMessage problem={action.problem} />
        <footer>
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class={submitClass} disabled={!ready || action.busy}>
            {submitName}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
