"""A folder of transformers' in our form: settings, weights under our names, tokenizer; or why it has none."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.exchange.bert import OLD_KINDS
from foundation.exchange.family import Family
from foundation.exchange.names import with_prefix
from foundation.exchange.to_stock import FAMILIES
from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder
from foundation.objective.masked_lm import MaskedLMHead
from foundation.objective.next_sentence import SentencePairs
from foundation.train.checkpoint import load_tensors

_WEIGHTS, _SHARDS, _PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
# Copies that old checkpoints keep of weights that are tied, and a buffer that is no weight.
_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "decoder.weight": "model.embeddings.tok_embeddings.weight",
}
_BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")


@dataclass(frozen=True, slots=True)
class Arrival:
    """tensors: `encoder.*` and `heads.*` as a foundation has them, float32. left: what of theirs was not taken."""

    architecture: str
    model: ModelConfig
    tensors: dict[str, Tensor]
    left: list[str]

    def has(self, head: str) -> bool:
        """Whether a head, or a part of it, came along."""
        return any(name.startswith(f"heads.{head}.") for name in self.tensors)


def read_stock(folder: Path, *, encoder_only: bool) -> Arrival:
    """Read config.json and the weights. Raises UserError, with the reason, for what cannot be held here."""
    config = _config_of(folder)
    family = next(family for family in FAMILIES if family.model_type == config["model_type"])
    model = family.model_config(config)
    model.check()
    theirs = _read_weights(folder, family)
    table = family.encoder if encoder_only else family.encoder | family.mlm | family.pair
    if not encoder_only:
        theirs = _without_tied(theirs, config)
    ours, left = table.from_stock(theirs)
    if any(name.startswith("classifier.") for name in left):
        # The head of a classifier goes by the same names as the one for masked tokens.
        left += [name for name in theirs if name.startswith("head.")]
        ours = {name: tensor for name, tensor in ours.items() if not name.startswith("heads.mlm.")}
    elif any(name.startswith("heads.mlm.") for name in ours):
        family.refuse_mlm(config)
    ours = _completed(ours, family.spare(config, model), model, folder)
    architecture = (config.get("architectures") or [f"{family.classes}Model"])[0]
    return Arrival(architecture, model, ours, sorted(set(left)))


def _config_of(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(
            f"no folder at {folder}: download one, as in  hf download google-bert/bert-base-uncased --local-dir {folder.name}"
        )
    config: dict[str, Any] = read_json(folder / "config.json")
    known = [family.model_type for family in FAMILIES]
    if config.get("model_type") not in known:
        raise UserError(
            f"{folder / 'config.json'} has model_type={config.get('model_type')!r}: what can be taken in is "
            f"{' and '.join(known)}"
        )
    return config


def _read_weights(folder: Path, family: Family) -> dict[str, Tensor]:
    """All tensors in float32, under the names that they have in a model with a head."""
    if (folder / _SHARDS).is_file():
        files = sorted(set(read_json(folder / _SHARDS)["weight_map"].values()))
    elif not (folder / _WEIGHTS).is_file() and (folder / _PICKLED).is_file():
        raise UserError(
            f"{folder} has its weights in {_PICKLED}, a pickle, which may run any code and is not opened: fetch or make "
            f"{_WEIGHTS} (AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER) in a place you trust)"
        )
    else:
        files = [_WEIGHTS]
    found: dict[str, Tensor] = {}
    for file in files:
        found |= load_tensors(folder / file)
    names = with_prefix(found, family.prefix)
    renamed = {_new_kind(names[name]): tensor.to(torch.float32) for name, tensor in found.items()}
    return {name: tensor for name, tensor in renamed.items() if name not in _BUFFERS}


def _new_kind(name: str) -> str:
    module, _, kind = name.rpartition(".")
    return f"{module}.{OLD_KINDS.get(kind, kind)}"


def _without_tied(theirs: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Drop copies of tied weights. Raises UserError where a copy is a matrix of its own."""
    for copy, source in _TIED.items():
        if copy in theirs and source in theirs and not torch.equal(theirs[copy], theirs[source]):
            raise UserError(
                f"{copy} differs from {source} (tie_word_embeddings={config.get('tie_word_embeddings', True)}): here the "
                "head for masked tokens has the embeddings' own matrix; take the encoder alone with encoder_only=true"
            )
    return {name: tensor for name, tensor in theirs.items() if name not in _TIED}


def _completed(ours: dict[str, Tensor], spare: set[str], model: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """Held against the modules that will take them: spare biases become zeros, anything else that is missing is an error."""
    with torch.device("meta"):
        parts: dict[str, nn.Module] = {"encoder": Encoder(model)}
        for name, head in (("mlm", MaskedLMHead), ("pair", SentencePairs)):
            if any(key.startswith(f"heads.{name}.") for key in ours):
                parts[f"heads.{name}"] = head(model)
    shapes = {f"{part}.{name}": t.shape for part, module in parts.items() for name, t in module.state_dict().items()}
    # A bare model has the pooler of the head for pairs and not its classifier.
    optional = {name for name in shapes if name.startswith("heads.pair.classify.")}
    whole = {name: torch.zeros(shapes[name]) for name in spare if name in shapes} | ours
    if missing := sorted(shapes.keys() - whole.keys() - optional):
        raise UserError(f"{folder} lacks {len(missing)} weights, among them what is {missing[0]} here: it is not whole")
    for name, tensor in whole.items():
        if name not in shapes or tensor.shape != shapes[name]:
            raise UserError(
                f"the weights in {folder} are not of its config.json: what is {name} here has shape "
                f"{tuple(tensor.shape)} and should have {tuple(shapes.get(name, ()))}"
            )
    return whole
