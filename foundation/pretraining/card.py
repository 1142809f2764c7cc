"""The card of a foundation: where it comes from, what it cost, what it scored."""

import shlex
from typing import Any

from foundation.model.config import ModelConfig
from foundation.objective.config import MaskingConfig
from foundation.train.config import AdamWConfig, MuonConfig, OptimConfig
from foundation.train.pretrain_config import PretrainConfig


def model_card(cfg: PretrainConfig, run: dict[str, Any], corpus: dict[str, Any], info: dict[str, Any]) -> str:
    """Markdown. `{fingerprint}` in it is replaced by the one of the saved weights."""
    train = corpus["train"]
    scores = "\n".join(f"| {name} | {value:.4f} |" for name, value in info["held_out"].items())
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if version)
    commit = (run.get("git") or {}).get("commit")
    return f"""# {info["name"]}

A Transformer encoder pretrained by Foundation{"" if "init" in info else " from scratch"}.

| what | |
|---|---|
| foundation (hash of the encoder's weights) | `{{fingerprint}}` |
| corpus | `{info["corpus"]}`: {train["documents"]:,} documents, {train["words"]:,} words, {train["tokens"]:,} tokens |
| tokenizer | `{info["tokenizer"]}`, {corpus["vocab_size"]:,} entries |
| encoder | {_encoder(cfg.model)} |
| parameters, heads included | {info["parameters"]:,} |
| objective | {_objective(cfg, info["asked"])} |
| batch | {cfg.batches.rows_per_step} rows of up to {cfg.batches.seq_len} tokens |
| optimizer | {_optimizer(cfg.optim)}; {cfg.schedule.shape.value}, warm-up over {cfg.schedule.warmup_share:.3g} of the steps |
| began with | {f"`{info['init']}` ({info['init_name']})" if "init" in info else "fresh weights"} |
| steps, tokens seen | {info["steps"]:,}, {info["tokens"]:,} |
| seconds of training | {info["training_seconds"]:.4g} |
| machine | {_machine(cfg, run)} |
| operations (counted from the shape) | {info["flops"]:.3g} |
| seed | {info["seed"]} |
| command | `{shlex.join(run["command"])}` |
| commit | {f"`{commit}`" if commit else "not under version control"} |
| versions | {versions} |

## Held-out scores

Masked at a fixed 15 %, fixed rows and masks, nats a target. Not comparable between tokenizers.

| score | |
|---|---|
{scores}
"""


def _encoder(model: ModelConfig) -> str:
    norms = "before" if model.is_pre_norm else "after"
    positions = "rotary" if model.is_rotary else "learned"
    return (
        f"{model.layers} layers of {model.width}, {model.heads} heads, {model.feed_forward.value} of {model.ffn_width}, "
        f"norms {norms} the sub-layers, {positions} positions"
    )


def _objective(cfg: PretrainConfig, asked: dict[str, float]) -> str:
    """Masks, and what is asked beside them with its weight."""
    weights = asked | ({"z-loss": cfg.objective.z_loss_weight} if cfg.objective.z_loss_weight else {})
    return ", ".join([_masks(cfg.objective.masking), *(f"{name} × {weight:g}" for name, weight in weights.items())])


def _masks(masking: MaskingConfig) -> str:
    rates = dict.fromkeys(f"{rate:.3g}" for rate in (masking.rate, masking.final_rate))
    unit = "" if masking.unit.value == "token" else f" ({masking.unit.value})"
    return f"MLM, {' to '.join(rates)} of the tokens hidden{unit}"


def _optimizer(optim: OptimConfig) -> str:
    match optim:
        case MuonConfig():
            return f"Muon at {optim.muon_lr:g}, AdamW at {optim.adamw.lr:g} for the rest"
        case AdamWConfig():
            return f"AdamW at {optim.lr:g}"
    raise TypeError(f"unknown optimizer {type(optim).__name__}")


def _machine(cfg: PretrainConfig, run: dict[str, Any]) -> str:
    """Of the last session."""
    machine, session = run["machine"], run["sessions"][-1]
    threads = f"{machine['cpu']}, {session['threads']} of {machine['cpu_count']} threads"
    name = machine["gpu"] if session["device"] == "cuda" else threads
    return f"{session['ranks']} × {name}, {cfg.trainer.precision.value}"
