"""What a family of stock classes can hold, both ways: settings, weights, and the reasons why something does not fit."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from foundation.core.errors import UserError
from foundation.data.tokenizer import SpecialIds
from foundation.exchange.names import NameTable
from foundation.model.config import ModelConfig


@dataclass(slots=True)
class Stock:
    """A model as a stock class has it: the class's name, the content of config.json, the weights.

    notes: what was folded or left out on the way, a sentence each, for the card and the user.
    """

    architecture: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


class Family(ABC):
    """`bert` or `modern` as transformers has it.

    classes: the stem of its class names. prefix: of the encoder's weights. encoder, mlm, …: names of parts, ours and theirs.
    inputs: what the model takes, in the tokenizer's words.
    """

    model_type: str
    classes: str
    prefix: str
    encoder: NameTable
    mlm: NameTable
    pair: NameTable
    sequence: NameTable
    token: NameTable
    span: NameTable
    inputs: tuple[str, ...]

    @abstractmethod
    def misfits(self, model: ModelConfig) -> list[str]:
        """Settings that no class of the family can hold, a phrase each."""

    @abstractmethod
    def completed(self, ours: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
        """The weights with what the classes have beyond them, in values that change nothing."""

    def config(self, model: ModelConfig, specials: SpecialIds, completed: dict[str, Tensor]) -> dict[str, Any]:
        """config.json without `architectures` and what belongs to a task; which biases there are is seen from the weights.

        Here what every family calls by the same name; each adds its own.
        """
        return {
            "model_type": self.model_type,
            "vocab_size": model.vocab_size,
            "hidden_size": model.width,
            "num_hidden_layers": model.layers,
            "num_attention_heads": model.heads,
            "intermediate_size": model.ffn_width,
            "max_position_embeddings": model.max_seq_len,
            "initializer_range": model.init_std,
            "pad_token_id": specials.pad,
        }

    @abstractmethod
    def model_config(self, config: dict[str, Any]) -> ModelConfig:
        """Our settings for a config.json of theirs. Raises UserError, with the reason, where there are none."""

    @abstractmethod
    def refuse_mlm(self, config: dict[str, Any]) -> None:
        """Raise UserError where a config.json gives the head for masked tokens another arithmetic than ours."""

    @abstractmethod
    def spare(self, config: dict[str, Any], model: ModelConfig) -> set[str]:
        """Names, in our words, of biases that a model of these settings does without and ours has: they are zero."""


def with_biases(ours: dict[str, Tensor], has_one: Callable[[str], bool]) -> dict[str, Tensor]:
    """The weights with a bias of zeros in every module that has one there and none here."""
    modules = {name.removesuffix(".weight"): weight for name, weight in ours.items() if name.endswith(".weight")}
    zeros = {
        f"{module}.bias": weight.new_zeros(weight.shape[0]) for module, weight in modules.items() if has_one(module)
    }
    return zeros | ours


def refuse_other(config: dict[str, Any], allowed: dict[str, tuple[Any, ...]]) -> None:
    """Raise UserError naming every setting that is there and is none of the values allowed; absent is as good."""
    wrong = [
        f"{key}={config[key]!r} (can be held: {', '.join(map(repr, values))})"
        for key, values in allowed.items()
        if config.get(key) is not None and config[key] not in values
    ]
    if wrong:
        raise UserError(f"config.json asks for what the encoder here cannot do: {'; '.join(wrong)}")
