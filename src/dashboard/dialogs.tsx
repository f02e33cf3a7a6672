// The dialogs that confirm a change before it is sent.
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { ask, RequestError } from "./lb-client.ts";
import { update, type Dialog } from "./store.ts";

export function DialogOf({ dialog }: { dialog: Dialog }) {
  return dialog.is === "backend" ? <BackendDialog {...dialog} /> : <KillDialog {...dialog} />;
}

/** A modal dialog; Esc and Cancel close it. `send` throws the error. */
function Modal(props: {
  title: string;
  confirm: string;
  isDangerous: boolean;
  send: () => Promise<void>;
  children: ComponentChildren;
}) {
  const { title, confirm, isDangerous, send, children } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState("");
  const [isSending, setIsSending] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  const close = (): void => update({ dialog: null });
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setIsSending(true);
    try {
      await send();
      close();
    } catch (failure) {
      if (!(failure instanceof RequestError)) throw failure;
      setError(failure.message);
      setIsSending(false);
    }
  };
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="dialog-title">
      <form onSubmit={(event) => void submit(event)}>
        <h2 id="dialog-title">{title}</h2>
        {children}
        {error !== "" && (
          <p class="alarm" role="alert">
            {error}
          </p>
        )}
        <div class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class={isDangerous ? "danger" : "primary"} disabled={isSending}>
            {confirm}
          </button>
        </div>
      </form>
    </dialog>
  );
}

const STATES = [
  ["ready", "Ready", "gets new connections while it is up"],
  ["drain", "Drain", "gets no new connections; open ones continue"],
  ["maintenance", "Maintenance", "as drain, and without health checks"],
] as const;

function BackendDialog({ pool, backend, state, weight }: Dialog & { is: "backend" }) {
  const [nextState, setState] = useState(state);
  const [nextWeight, setWeight] = useState(String(weight));
  const [timeout, setTimeout] = useState("");
  const send = async (): Promise<void> => {
    // A timeout needs the state, even if the state does not change.
    const ends = timeout !== "" && nextState !== "ready";
    const body = {
      ...((nextState !== state || ends) && { state: nextState }),
      ...(nextWeight !== String(weight) && { weight: nextWeight === "" ? null : Number(nextWeight) }),
      ...(ends && { timeout }),
    };
    if (Object.keys(body).length === 0) return;
    await ask("PATCH", `/api/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}`, body);
  };
  return (
    <Modal title={`${pool}/${backend}`} confirm="Apply" isDangerous={false} send={send}>
      <fieldset>
        <legend>State</legend>
        {STATES.map(([name, label, does]) => (
          <label key={name} class="choice">
            <input
              type="radio"
              name="state"
              value={name}
              checked={nextState === name}
              onChange={() => setState(name)}
            />
            <span>
              <b>{label}</b>: {does}
            </span>
          </label>
        ))}
      </fieldset>
      {nextState !== "ready" && (
        <label class="field">
          End what still lives after
          <input
            value={timeout}
            placeholder="never"
            pattern="[0-9]+(ms|s|m|h)"
            title="a duration, such as 30s"
            onInput={(event) => setTimeout(event.currentTarget.value)}
          />
        </label>
      )}
      <label class="field">
        Weight (0 to 256; empty = the config's)
        <input
          type="number"
          min={0}
          max={256}
          value={nextWeight}
          onInput={(event) => setWeight(event.currentTarget.value)}
        />
      </label>
    </Modal>
  );
}

function KillDialog({ path, what }: Dialog & { is: "kill" }) {
  const send = async (): Promise<void> => {
    await ask("DELETE", path);
  };
  return (
    <Modal title="Kill connections" confirm="Kill" isDangerous send={send}>
      <p>This ends {what} with a reset. Nothing brings them back.</p>
    </Modal>
  );
}
