"""The card of a foundation: where it comes from, what it cost, what it scored."""

import shlex
from typing import Any


def model_card(run: dict[str, Any], corpus: dict[str, Any], info: dict[str, Any]) -> str:
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
| began with | {f"`{info['init']}` ({info['init_name']})" if "init" in info else "fresh weights"} |
| steps, tokens seen | {info["steps"]:,}, {info["tokens"]:,} |
| seconds of training | {info["training_seconds"]:.0f} |
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
