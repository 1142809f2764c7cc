"""What a resumed run must share with the one it goes on with, beside its settings; and the command that goes on."""

import shlex
from pathlib import Path

from foundation.core import distributed
from foundation.core.errors import UserError
from foundation.core.run import Run
from foundation.data.corpus import Corpus
from foundation.train.checkpoint import Checkpoints
from foundation.train.foundation import Foundation


def take_corpus(run: Run, corpus: Corpus, beginning: Foundation | None, *, has_checkpoint: bool) -> None:
    """Note which corpus, tokenizer and beginning a run is of; where nothing is trained yet, others may take their place.

    Settings name files; what these hold may change under the same names. Raises UserError where it did after a checkpoint.
    """
    found = {"corpus": corpus.fingerprint, "tokenizer": corpus.tokenizer.fingerprint}
    found |= {} if beginning is None else {"init": beginning.fingerprint}
    before = run.record["fingerprints"]
    changed = [name for name in found if before.get(name, found[name]) != found[name]]
    if changed and has_checkpoint:
        said = " and ".join(f"the {name} ({before[name]} → {found[name]})" for name in changed)
        raise UserError(
            f"cannot resume {run.path}: {said} changed after its last checkpoint: restore the files that these settings "
            "name, or start a new run under another name="
        )
    if changed:
        run.record.pop("plan", None)  # how many steps a number of tokens takes depends on the corpus
    run.update(fingerprints=found)


def dropout_changes(run: Run) -> list[str]:
    """What dropout's masks depend on and an earlier session, one that got to a checkpoint, had otherwise than this one."""
    *earlier, now = run.record["sessions"]
    return [
        f"{name} was {then}, now {now[name]}"
        for name in ("ranks", "micro_batch_rows", "device")
        for then in sorted({session[name] for session in earlier if session["ledger"] and name in session})
        if then != now[name]
    ]


def command_to_go_on() -> str:
    """As this session was started, and resumed."""
    words = [word for word in distributed.command_line("pretrain") if not word.startswith("resume=")]
    return shlex.join([*words, "resume=true"])


def full_disk(error: OSError, run_path: Path) -> UserError:
    """The sentence for a run that found no room."""
    steps = Checkpoints(run_path / "checkpoints", keep=0).steps()
    saved = f"the checkpoint of step {steps[-1]} is untouched" if steps else "there is no checkpoint yet"
    return UserError(f"{error.strerror} for {run_path}: {saved}; make room and go on with  {command_to_go_on()}")
