"""What a finished pretraining leaves: the foundation, its card, the curves, and the word of where they are."""

import shlex
from typing import TYPE_CHECKING, Any

from foundation.core.distributed import is_main
from foundation.core.plain import to_plain
from foundation.core.plots import plot_curves
from foundation.pretraining.card import model_card
from foundation.train.foundation import save_foundation

if TYPE_CHECKING:
    from foundation.pretraining.session import Session


def finish(session: "Session") -> None:
    """Write `final/` and `plots/`, note the costs, send the artifacts."""
    cfg, run = session.cfg, session.run
    final, tokenizer = run.path / "final", session.corpus.tokenizer
    info = _info(session)
    if is_main():
        card = model_card(cfg, run.record, session.corpus.manifest, info)
        with session.state.averaged():
            weights = session.objective.state_dict()
            info["fingerprint"] = save_foundation(final, weights, cfg.model, tokenizer, info, card)
        run.update(fingerprints={"foundation": info["fingerprint"]})
        run.set_result({key: info[key] for key in ("steps", "tokens", "training_seconds", "flops", "held_out")})
        plot_curves(run.path / "metrics.jsonl", run.path / "plots", unigram_nats=session.unigram_nats)
        session.wandb.log_model(final, f"foundation-{session.foundation_id}", "foundation", info)
        session.wandb.log_model(final / "tokenizer.json", f"tokenizer-{tokenizer.fingerprint}", "tokenizer", {})
        session.wandb.summary({**run.record["result"], **session.last_eval})
    session.note_costs()
    elsewhere = "" if cfg.runs_dir == "runs" else f" runs_dir={shlex.quote(cfg.runs_dir)}"
    session.logger.say(
        f"{cfg.name}: {info['tokens']:,} tokens in {info['training_seconds']:.0f} s of training\n"
        f"  foundation  {final}\n"
        f"  curves      {run.path / 'plots'}\n"
        f"  next        python -m foundation.finetune task=rotten_tomatoes {shlex.quote(f'foundation={cfg.name}')}{elsewhere}"
    )


def _info(session: "Session") -> dict[str, Any]:
    cfg = session.cfg
    beginning = session.beginning
    parent = {} if beginning is None else {"init": beginning.fingerprint, "init_name": beginning.info.get("name", "")}
    return {
        **parent,
        "name": cfg.name,
        "foundation_id": session.foundation_id,
        "corpus": session.corpus.fingerprint,
        "tokenizer": session.corpus.tokenizer.fingerprint,
        "objective": to_plain(cfg.objective),
        "asked": {term.question: term.weight for term in session.objective.asked},
        "seed": cfg.seed,
        "seq_len": cfg.batches.seq_len,
        "parameters": sum(parameter.numel() for parameter in session.objective.parameters()),
        "steps": session.total_steps,
        "tokens": session.tokens,
        "training_seconds": session.trained_seconds,
        "flops": session.tokens * session.flops_per_token,
        "held_out": session.last_eval,
    }
