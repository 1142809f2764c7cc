"""What a resumed run must share with the one it goes on with, beside its settings."""

from foundation.core.errors import UserError
from foundation.core.run import Run
from foundation.data.corpus import Corpus


def take_corpus(run: Run, corpus: Corpus, *, has_checkpoint: bool) -> None:
    """Note which corpus and tokenizer a run is of; where nothing is trained yet, others may take their place.

    Settings name files; what these hold may change under the same names. Raises UserError where it did after a checkpoint.
    """
    found = {"corpus": corpus.fingerprint, "tokenizer": corpus.tokenizer.fingerprint}
    before = run.record["fingerprints"]
    changed = [name for name in found if before.get(name, found[name]) != found[name]]
    if changed and has_checkpoint:
        said = " and ".join(f"the {name} ({before[name]} → {found[name]})" for name in changed)
        raise UserError(
            f"cannot resume {run.path}: {said} changed after its last checkpoint: restore the files that data and tokenizer "
            "name, or start a new run under another name="
        )
    if changed:
        run.record.pop("plan", None)  # how many steps a number of tokens takes depends on the corpus
    run.update(fingerprints=found)
