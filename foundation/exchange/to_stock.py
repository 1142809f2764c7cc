"""Our models in the form of the stock classes: which class, which settings, which weights; or why there is none."""

import copy
import re

import torch
from torch import Tensor

from foundation.core.errors import UserError
from foundation.data.tokenizer import Tokenizer
from foundation.exchange.bert import Bert
from foundation.exchange.family import Family, Stock
from foundation.exchange.modern import Modern
from foundation.exchange.names import NameTable
from foundation.model.attention import Attention
from foundation.model.config import ModelConfig, ShareLayers
from foundation.model.encoder import Encoder
from foundation.model.sharing.adapter import AdaptedLinear
from foundation.model.sharing.lora import merge
from foundation.train.foundation import Foundation

FAMILIES: tuple[Family, ...] = (Bert(), Modern())
_TOKENS = "encoder.token_embedding.weight"
SEGMENTS = "encoder.segment_embedding.weight"
_OF_LAYER = re.compile(r"encoder\.layers\.\d+\.(.+)")
# The class for what is there: (a head for masked tokens, a head for pairs of sentences).
_KINDS = {
    (True, True): "ForPreTraining",
    (True, False): "ForMaskedLM",
    (False, True): "ForNextSentencePrediction",
    (False, False): "Model",
}
FOLDED = "The embedding of the first segment is added to every token's, which is exact where there is one segment."


def family_of(model: ModelConfig) -> Family:
    """The family whose classes hold the model. Raises UserError, naming the switches, where none can."""
    family: Family = Modern() if model.is_pre_norm else Bert()
    if found := family.misfits(model):
        raise UserError(
            f"no stock class of transformers can hold this model: {'; '.join(found)}; pretrain with "
            "model=bert_… or model=modern_… as they are"
        )
    return family


def stock_foundation(foundation: Foundation) -> Stock:
    """A pretrained encoder with the heads of pretraining, as far as its family has classes for them."""
    model, family, notes = foundation.model, family_of(foundation.model), list[str]()
    tensors = dict(foundation.tensors)
    for head, what in (("words", "words of the document"), ("detection", "spoilt tokens")):
        if own := [name for name in tensors if name.startswith(f"heads.{head}.")]:
            notes.append(f"The head for {what} is left behind: no class of transformers has one.")
            for name in own:
                del tensors[name]
    has_mlm, has_pair = "heads.mlm.bias" in tensors, "heads.pair.classify.weight" in tensors
    if has_pair and not family.pair.modules:
        has_pair = False
        notes.append(
            f"The head for pairs of sentences is left behind: no {family.classes} class has one. "
            "What the encoder learnt from it stays."
        )
    if not has_pair and (has_mlm or not family.pair.modules):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("heads.pair.")}
    kind = _KINDS[has_mlm, has_pair]
    table = family.encoder | family.mlm | family.pair
    is_tied = True
    if SEGMENTS in tensors and "token_type_ids" not in family.inputs:
        notes.append(f"{FOLDED} Of a pair, it cannot tell the second text from the first by its segment.")
        # The head's product is with the embeddings as they were: folded and unfolded ones are two matrices now.
        untied = {"heads.mlm.weight": tensors[_TOKENS]} if has_mlm else {}
        tensors, is_tied = folded_segments(tensors) | untied, not untied
    stock = to_stock(family, table, tensors, model, foundation.tokenizer, f"{family.classes}{kind}")
    stock.config["tie_word_embeddings"] = is_tied
    if kind == "Model":
        stock.tensors = {name.removeprefix(family.prefix): tensor for name, tensor in stock.tensors.items()}
    stock.notes = notes
    return stock


def folded_segments(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same model for rows of one segment: the sum of token and first segment, which is what it computes, is stored."""
    rest = {name: tensor for name, tensor in tensors.items() if name != SEGMENTS}
    return rest | {_TOKENS: tensors[_TOKENS] + tensors[SEGMENTS][0]}


def written_out(tensors: dict[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """The same weights with those that layers have in common once for every layer: no class of the families shares them."""
    if model.share_layers is ShareLayers.none:
        return tensors
    whole = dict(tensors)
    for name, tensor in tensors.items():
        if (found := _OF_LAYER.fullmatch(name)) is None:
            continue
        # With pre-norm the first layer has no norm before its attention.
        first = 1 if found[1].startswith("attention_norm.") and model.is_pre_norm else 0
        for number in range(first, model.layers):
            whole.setdefault(f"encoder.layers.{number}.{found[1]}", tensor.clone())
    return whole


def plain_encoder(encoder: Encoder) -> Encoder:
    """A copy without what a sharing method added: low-rank terms are merged. Raises UserError for what cannot be."""
    plain = copy.deepcopy(encoder)
    merge(plain)
    for module in plain.modules():
        added = "adapter" if isinstance(module, AdaptedLinear) else None
        added = "prefix" if isinstance(module, Attention) and module.prefix is not None else added
        if added:
            raise UserError(
                f"no stock class of transformers has room for what sharing={added} adds: fine-tune with sharing=lora, "
                "which merges, or with full, top_k, bitfit or probe to export it"
            )
    return plain


def to_stock(
    family: Family,
    table: NameTable,
    tensors: dict[str, Tensor],
    model: ModelConfig,
    tokenizer: Tokenizer,
    architecture: str,
) -> Stock:
    """Weights under their stock names with the settings that go with them."""
    whole = written_out({name: tensor.to(torch.float32) for name, tensor in tensors.items()}, model)
    whole = family.completed(whole, model)
    config = {"architectures": [architecture], **family.config(model, tokenizer.specials, whole)}
    return Stock(architecture, config, table.to_stock(whole))
