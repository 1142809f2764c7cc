"""Ours against transformers' own classes: float64, every weight random, rows of uneven length, 1e-10."""

import pytest
import torch
import torch.nn.functional as F

from foundation.model.config import ModelConfig
from foundation.model.encoder import Encoder
from foundation.objective.base import Example
from foundation.objective.config import MaskingConfig, ObjectiveConfig, SentenceTask
from foundation.objective.pretraining import PretrainingObjective
from tests.builders import SPECIALS, bert_config, modern_config, randomise

transformers = pytest.importorskip("transformers")
LENGTHS = (17, 40, 3, 29)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def objective_of(model: ModelConfig, task: SentenceTask) -> PretrainingObjective:
    import numpy as np

    cfg = ObjectiveConfig(masking=MaskingConfig(), sentence_task=task)
    objective = PretrainingObjective(cfg, model, SPECIALS, np.zeros(model.vocab_size, bool), seq_len=40).double()
    randomise(objective)
    return objective


def example() -> Example:
    generator = torch.Generator().manual_seed(1)
    n = sum(LENGTHS)
    ids = torch.randint(5, 101, (n,), generator=generator)
    segments = torch.cat([(torch.arange(length) > length // 2).long() for length in LENGTHS])
    at = torch.randperm(n, generator=generator)[:23].sort().values
    targets = torch.randint(5, 101, (23,), generator=generator)
    return Example(ids, segments, LENGTHS, at, targets, torch.tensor([0, 1, 1, 0]))


def padded(flat: torch.Tensor, fill: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(flat.split(list(LENGTHS)), batch_first=True, padding_value=fill)


def inputs_of(ex: Example) -> dict[str, torch.Tensor]:
    """What transformers wants: padded rows, and labels of -100 where nothing is asked."""
    labels = torch.full_like(ex.ids, -100)
    labels[ex.targets_at] = ex.targets
    return {
        "input_ids": padded(ex.ids, 0),
        "attention_mask": padded(torch.ones_like(ex.ids), 0),
        "labels": padded(labels, -100),
    }


BERT_NAMES = {
    "bert.embeddings.word_embeddings": "encoder.token_embedding",
    "bert.embeddings.position_embeddings": "encoder.position_embedding",
    "bert.embeddings.token_type_embeddings": "encoder.segment_embedding",
    "bert.embeddings.LayerNorm": "encoder.embedding_norm",
    "bert.pooler.dense": "heads.pair.pool",
    "cls.seq_relationship": "heads.pair.classify",
    "cls.predictions.transform.dense": "heads.mlm.dense",
    "cls.predictions.transform.LayerNorm": "heads.mlm.norm",
}
BERT_LAYER_NAMES = {
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "feed_forward.into",
    "output.dense": "feed_forward.out",
    "output.LayerNorm": "feed_forward_norm",
}


def copy_bert(ours: PretrainingObjective, theirs: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Their weights into ours; returns our parameter for each name of theirs (the three of attention are one of ours)."""
    own = dict(ours.named_parameters())
    pairs: dict[str, torch.nn.Parameter] = {"cls.predictions.bias": own["heads.mlm.bias"]}
    for name, _ in theirs.named_parameters():
        stem, _, kind = name.rpartition(".")
        if stem in BERT_NAMES:
            pairs[name] = own[f"{BERT_NAMES[stem]}.{kind}"]
        elif stem.startswith("bert.encoder.layer.") and ".self." not in stem:
            number, rest = stem.removeprefix("bert.encoder.layer.").split(".", 1)
            pairs[name] = own[f"encoder.layers.{number}.{BERT_LAYER_NAMES[rest]}.{kind}"]
    source = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in pairs.items():
            parameter.copy_(source[name])
        for number in range(ours.encoder.cfg.layers):
            for kind in ("weight", "bias"):
                parts = [
                    source[f"bert.encoder.layer.{number}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")
                ]
                own[f"encoder.layers.{number}.attention.qkv.{kind}"].copy_(torch.cat(parts))
    return pairs


def test_bert_losses_and_all_gradients_equal_transformers() -> None:
    cfg = bert_config()
    theirs = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=cfg.vocab_size, hidden_size=cfg.width, num_hidden_layers=cfg.layers, num_attention_heads=cfg.heads,
            intermediate_size=cfg.ffn_width, max_position_embeddings=cfg.max_seq_len, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).double()  # fmt: skip
    randomise(theirs, seed=7)
    ours, ex = objective_of(cfg, SentenceTask.nsp), example()
    pairs = copy_bert(ours, theirs)

    ours(ex, ours.count(ex)).sum().backward()
    mlm, nsp = ours(ex, ours.count(ex)).tolist()
    output = theirs(**inputs_of(ex), token_type_ids=padded(ex.segments, 0), next_sentence_label=ex.labels)
    output.loss.backward()

    torch.testing.assert_close(torch.tensor(mlm + nsp, dtype=torch.float64), output.loss.detach(), **TOLERANCE)
    expected_nsp = F.cross_entropy(output.seq_relationship_logits.detach(), ex.labels)
    torch.testing.assert_close(torch.tensor(nsp, dtype=torch.float64), expected_nsp, **TOLERANCE)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in pairs.items():
        torch.testing.assert_close(
            parameter.grad, gradients[name], **TOLERANCE, msg=lambda text, n=name: f"{n}: {text}"
        )
    for number in range(cfg.layers):
        for kind in ("weight", "bias"):
            parts = [
                gradients[f"bert.encoder.layer.{number}.attention.self.{p}.{kind}"] for p in ("query", "key", "value")
            ]
            own = ours.get_parameter(f"encoder.layers.{number}.attention.qkv.{kind}").grad
            torch.testing.assert_close(own, torch.cat(parts), **TOLERANCE)
    assert len(pairs) + 6 * cfg.layers == len(gradients), "every parameter of theirs is compared"


MODERN_NAMES = {
    "model.embeddings.tok_embeddings": "encoder.token_embedding",
    "model.embeddings.norm": "encoder.embedding_norm",
    "model.final_norm": "encoder.final_norm",
    "head.dense": "heads.mlm.dense",
    "head.norm": "heads.mlm.norm",
    "decoder": "heads.mlm",
}
MODERN_LAYER_NAMES = {
    "attn.Wqkv": "attention.qkv", "attn.Wo": "attention.out", "attn_norm": "attention_norm",
    "mlp.Wi": "feed_forward.into", "mlp.Wo": "feed_forward.out", "mlp_norm": "feed_forward_norm",
}  # fmt: skip


@pytest.mark.parametrize("window", [0, 8])
def test_modern_loss_and_all_gradients_equal_transformers(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama
    from transformers.models.modernbert import modeling_modernbert

    # ModernBERT's own rotation rounds to float32 on the way; the one of Llama in the same library is the same without it.
    monkeypatch.setattr(modeling_modernbert, "apply_rotary_pos_emb", modeling_llama.apply_rotary_pos_emb)
    cfg = modern_config(local_window=window, global_every=3)
    settings = transformers.ModernBertConfig(
        vocab_size=cfg.vocab_size, hidden_size=cfg.width, num_hidden_layers=cfg.layers, num_attention_heads=cfg.heads,
        intermediate_size=cfg.ffn_width, max_position_embeddings=cfg.max_seq_len, pad_token_id=0, bos_token_id=2,
        eos_token_id=3, cls_token_id=2, sep_token_id=3, local_attention=window or 128, attn_implementation="sdpa",
        layer_types=None if window else ["full_attention"] * cfg.layers,
    )  # fmt: skip
    theirs = transformers.ModernBertForMaskedLM(settings).double()
    randomise(theirs, seed=7)
    ours, ex = objective_of(cfg, SentenceTask.none), example()
    own, source, compared = dict(ours.named_parameters()), dict(theirs.named_parameters()), {}
    for name in source:
        stem, _, kind = name.rpartition(".")
        if stem in MODERN_NAMES:
            compared[name] = own[f"{MODERN_NAMES[stem]}.{kind}"]
        else:
            number, rest = stem.removeprefix("model.layers.").split(".", 1)
            compared[name] = own[f"encoder.layers.{number}.{MODERN_LAYER_NAMES[rest]}.{kind}"]
    with torch.no_grad():
        for name, parameter in compared.items():
            parameter.copy_(source[name])

    loss = ours(ex, ours.count(ex)).sum()
    loss.backward()
    inputs = inputs_of(ex)
    # Their own loss rounds the logits to float32; torch's, on their logits, does not.
    expected = F.cross_entropy(theirs(**inputs).logits.flatten(0, 1), inputs["labels"].flatten())
    expected.backward()

    torch.testing.assert_close(loss.detach(), expected.detach(), **TOLERANCE)
    for name, parameter in compared.items():
        torch.testing.assert_close(
            parameter.grad, source[name].grad, **TOLERANCE, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert len(compared) == len(source) == len(own), "every parameter is compared"


@pytest.mark.parametrize("cfg", [bert_config(norm_eps=1e-5), bert_config(linear_bias=False)])
def test_golden_would_notice_a_small_mistake(cfg: ModelConfig) -> None:
    """The comparison can fail: another eps, or no biases, moves the output by more than the tolerance."""
    right, wrong, ex = Encoder(bert_config()).double(), Encoder(cfg).double(), example()
    randomise(right)
    wrong.load_state_dict({name: right.state_dict()[name] for name in wrong.state_dict()})
    difference = (right(ex.ids, ex.segments, ex.layout()) - wrong(ex.ids, ex.segments, ex.layout())).abs().max()
    assert difference > 1e-9
