"""One evaluation of one foundation: find it, ask it, and keep what it said below its run folder."""

import time
from pathlib import Path
from typing import Any

import torch

from foundation.core.device import choose_device
from foundation.core.distributed import command_line
from foundation.core.errors import UserError
from foundation.core.files import fingerprint, hash_file, write_json
from foundation.core.memory import keep_freed_memory
from foundation.core.run import open_run, run_exists
from foundation.data.text_files import find_files
from foundation.evaluation.config import EvaluateConfig, EvaluationConfig, HeldOutConfig, MinimalPairsConfig
from foundation.evaluation.held_out import evaluate_held_out, held_out_table
from foundation.evaluation.minimal_pairs import read_paradigms
from foundation.evaluation.pair_scores import evaluate_pairs, pairs_table
from foundation.evaluation.subject import load_subject
from foundation.train.foundation import find_foundation, home_of, load_foundation

# Where things are and how fast; not what comes out. Weights and texts are held by their hashes.
_SPEED_ONLY = frozenset(
    {"trainer.device", "trainer.threads", "runs_dir", "foundation", "evaluation.files", "evaluation.batch_tokens"}
)
SCORES_FILE = "scores.json"


def evaluate(cfg: EvaluateConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """The scores, also written to scores.json and printed; what is there already is not computed again."""
    keep_freed_memory()
    device = choose_device(cfg.trainer.device)
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    runs_dir = Path(cfg.runs_dir)
    final = find_foundation(cfg.foundation, runs_dir)
    foundation = load_foundation(final)
    folder = home_of(final, runs_dir) / "evaluation" / cfg.evaluation.name
    subject = load_subject(foundation, device, cfg.trainer.precision)
    files = _find_files(cfg.evaluation)
    # Heads are asked too, so the whole file of weights counts, not the encoder's fingerprint alone.
    texts = fingerprint([hash_file(path) for path in files]) if files else foundation.info.get("corpus")
    identity = {"weights": foundation.info["weights_hash"], "texts": texts}
    started = time.perf_counter()
    with open_run(
        folder,
        {**settings, **identity},
        resume=run_exists(folder),
        speed_only=_SPEED_ONLY,
        command=command_line("evaluate"),
        name="evaluation.name",
    ) as run:
        match cfg.evaluation:
            case HeldOutConfig():
                found = evaluate_held_out(subject, cfg.evaluation, files, runs_dir)
                table = held_out_table(found, cfg.foundation)
            case MinimalPairsConfig():
                found = evaluate_pairs(subject, cfg.evaluation, read_paradigms(files, cfg.evaluation), folder, runs_dir)
                table = pairs_table(found, cfg.foundation)
            case _:
                raise TypeError(f"no evaluation for {type(cfg.evaluation).__name__}")
        run.update(
            fingerprints={"foundation": foundation.fingerprint, "tokenizer": foundation.tokenizer.fingerprint},
            ledger={"seconds": time.perf_counter() - started},
        )
        content = {
            "identity": identity,
            "evaluation": cfg.evaluation.name,
            "foundation": foundation.fingerprint,
            "precision": cfg.trainer.precision.value,
            **found,
        }
        write_json(folder / SCORES_FILE, content)
    print(table, f"  {folder / SCORES_FILE}", sep="\n", flush=True)
    return content


def _find_files(cfg: EvaluationConfig) -> list[Path]:
    """The files of the settings. Raises UserError, with where they can be had, if one is not there."""
    try:
        return find_files(cfg.files, setting="evaluation.files")
    except UserError as error:
        raise UserError(f"{error}{f'; the files can be had from {cfg.origin}' if cfg.origin else ''}") from None
