"""Document words: drawn from the rest of the document, weighed by rarity, the same however rows are dealt out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foundation.core.errors import UserError
from foundation.core.randomness import RowRng
from foundation.data.batches import BROKEN, Batch, Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.data.corpus import TokenTable
from foundation.objective import document_words
from foundation.objective.config import DocumentWordsConfig, MaskingConfig, ObjectiveConfig
from foundation.objective.document_words import DocumentWords, DocumentWordsTerm, has_words
from foundation.objective.pretraining import PretrainingObjective
from foundation.objective.terms import States
from foundation.train.config import AdamWConfig, Precision, ScheduleConfig, Shape
from foundation.train.held_out import HeldOut
from foundation.train.loop import TrainState, train, train_step
from foundation.train.optim import Updater
from tests.builders import SPECIALS, modern_config, table

RNG = RowRng(0, "mask", 3)


def numbered(lengths: list[int]) -> TokenTable:
    """Documents of so many tokens, no two tokens of the table alike: an id is 5 + its place."""
    documents = np.concatenate([[0], np.cumsum(lengths)])
    return TokenTable(np.arange(5, 5 + documents[-1]).astype(np.uint16), documents, documents)


def batches(of: TokenTable, pairs: Pairs = Pairs.none, rows: int = 12) -> PretrainingBatches:
    cfg = BatchesConfig(rows_per_step=rows, seq_len=20, short_share=0.3)
    return PretrainingBatches(of, SPECIALS, cfg, pairs=pairs, seed=0)


def words_of(of: TokenTable, vocab_size: int = 101, **changes: object) -> DocumentWords:
    return DocumentWords(of, DocumentWordsConfig(weight=1.0, **changes), SPECIALS, vocab_size=vocab_size)


def objective_of(of: TokenTable | None, weight: float = 1.0, vocab_size: int = 101) -> PretrainingObjective:
    torch.manual_seed(0)
    cfg = ObjectiveConfig(masking=MaskingConfig(), document_words=DocumentWordsConfig(weight=weight, per_row=16))
    model = modern_config(vocab_size=vocab_size)
    return PretrainingObjective(cfg, model, SPECIALS, np.zeros(vocab_size, bool), seq_len=40, table=of)


def asked(of: TokenTable, words: DocumentWords, objective: PretrainingObjective, batch: Batch):
    return words.ask(objective.masking(batch, RNG, 0.0), batch, RNG, of)


def test_words_are_of_the_same_document_and_never_of_the_row() -> None:
    of = numbered([150, 61, 18, 300])
    words, objective = words_of(of, 600), objective_of(None, vocab_size=600)
    for step in range(8):
        batch = batches(of).at(step)
        example = asked(of, words, objective, batch)
        for (start, end), drawn, is_asked in zip(
            batch.places, example.of_rows["words"].numpy() - 5, has_words(example), strict=True
        ):
            document = np.searchsorted(of.documents, start, side="right")
            first, last = of.documents[document - 1 : document + 1]
            assert bool(is_asked) == (end - start < last - first)
            if is_asked:
                assert ((drawn >= first) & (drawn < last) & ((drawn < start) | (drawn >= end))).all()


def test_every_token_of_the_rest_is_drawn_alike() -> None:
    of = numbered([60])
    words, objective = words_of(of, 100, per_row=40_000), objective_of(None, vocab_size=100)
    batch = batches(of, rows=3).at(0)
    example = asked(of, words, objective, batch)
    start, end = batch.places[0]
    counts = np.bincount(example.of_rows["words"][0].numpy() - 5, minlength=60)
    rest = np.delete(counts, np.arange(start, end))
    expected = 40_000 / len(rest)
    assert (np.abs(rest - expected) < 5 * expected**0.5).all()


@pytest.mark.parametrize("pairs", [Pairs.next, Pairs.order])
def test_a_broken_pair_is_asked_nothing(pairs: Pairs) -> None:
    of = table()
    batch = batches(of, pairs).at(0)
    example = asked(of, words_of(of), objective_of(None), batch)
    broken = batch.labels == BROKEN
    assert broken.any() and not has_words(example).numpy()[broken].any()
    assert has_words(example).numpy()[~broken].any()


def test_frequent_tokens_count_less_and_unknown_ones_nothing() -> None:
    ids = np.array([5] * 900 + [6] * 90 + [7] * 9 + [SPECIALS.unk], dtype=np.uint16)
    of = TokenTable(ids, np.array([0, 1000]), np.array([0, 1000]))
    weights = words_of(of, 10, threshold=0.01).weights
    assert weights[[5, 6, 7]].tolist() == pytest.approx([(0.01 / 0.9) ** 0.5, (0.01 / 0.09) ** 0.5, 1.0])
    assert weights[SPECIALS.unk] == 0


def test_rows_dealt_to_ranks_get_the_same_words() -> None:
    of = table()
    words, objective = words_of(of), objective_of(None)
    whole = asked(of, words, objective, batches(of).at(5))
    parts = [asked(of, words, objective, batches(of).at(5, rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat([part.of_rows["words"] for part in parts]), whole.of_rows["words"])
    assert torch.equal(torch.cat([part.of_rows["word_weights"] for part in parts]), whole.of_rows["word_weights"])


def test_the_loss_is_torchs_cross_entropy_with_shares_for_labels() -> None:
    of = table()
    objective = objective_of(of).double()
    example = objective.corrupt(batches(of).at(0), RNG, 0.0)
    hidden_TD = torch.randn(example.n_tokens, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    head, embedding_VD = objective.heads["words"], objective.encoder.token_embedding.weight
    assert isinstance(head, DocumentWordsTerm)
    logits_RV = head(hidden_TD, example.lengths, embedding_VD)
    weights_RS = example.of_rows["word_weights"].double()
    shares_RS = weights_RS / weights_RS.sum(1, keepdim=True).clamp(min=1e-12)
    labels_RV = torch.zeros_like(logits_RV).scatter_add_(1, example.of_rows["words"], shares_RS)
    expected = F.cross_entropy(logits_RV, labels_RV, reduction="sum")
    states = States(example.targets, hidden_TD[:0], hidden_TD[:0], hidden_TD)
    got = head.summed_loss(states, example, embedding_VD)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("micro_batch_rows", [1, 5])
def test_gradients_are_the_same_however_the_rows_are_cut(micro_batch_rows: int) -> None:
    of = numbered([15, 12, 9, 14, 90, 10, 11, 13, 60, 8])  # some rows are all of their document, and are asked nothing
    found = []
    for rows in (0, micro_batch_rows):
        objective = objective_of(of, weight=2.0, vocab_size=247).double()
        example = objective.corrupt(batches(of).at(0), RNG, 0.0)
        assert 0 < int(has_words(example).sum()) < 12
        losses, _ = train_step(state_of(objective, 1), example, rows)
        found.append((losses.tolist(), [parameter.grad for parameter in objective.parameters()]))
    (losses, whole), (cut_losses, cut) = found
    assert cut_losses == pytest.approx(losses, rel=1e-6)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def state_of(objective: PretrainingObjective, steps: int) -> TrainState:
    flat = ScheduleConfig(shape=Shape.stable_decay, warmup_share=0.0, decay_share=0.0)
    updater = Updater(objective, AdamWConfig(lr=5e-3, weight_decay=0.0), flat, steps)
    return TrainState(objective, updater, torch.device("cpu"), Precision.fp32)


def two_topics(n_documents: int, seed: int) -> TokenTable:
    """Half of the documents say 5 to 52, the other half 53 to 100: the rest of a document is told by its row."""
    of = table(n_documents, seed=seed)
    topic = np.arange(n_documents) % 2
    ids = of.ids.copy()
    for number, (start, end) in enumerate(zip(of.documents[:-1], of.documents[1:], strict=True)):
        ids[start:end] = 5 + (ids[start:end] - 5) % 48 + 48 * topic[number]
    return replace(of, ids=ids)


def test_it_learns_what_a_document_is_about() -> None:
    of, unseen = two_topics(40, 0), two_topics(40, 1)
    objective = objective_of(of)
    state = state_of(objective, 120)
    held_out = HeldOut(objective, unseen, seq_len=20, rows=64)
    before = held_out.metrics(state)["eval/words_loss"]
    train(state, batches(of), seed=0, micro_batch_rows=0, on_event=lambda *_: True)
    after = held_out.metrics(state)["eval/words_loss"]
    # All 96 words are about as frequent, and knowing the topic leaves 48 of them.
    assert before == pytest.approx(np.log(96), abs=0.15)
    assert after == pytest.approx(np.log(48), abs=0.15)


def test_without_documents_nothing_is_asked() -> None:
    objective = objective_of(None)
    example = objective.corrupt(batches(table()).at(0), RNG, 0.0)
    losses = objective(example, objective.count(example))
    assert objective.terms == ("mlm_loss", "words_loss") and losses[1] == 0 and losses[0] > 0


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"per_row": 0}, {"threshold": 0.0}, {"threshold": 2.0}])
def test_settings_that_cannot_work_are_named(wrong: dict[str, float]) -> None:
    cfg = ObjectiveConfig(masking=MaskingConfig(), document_words=DocumentWordsConfig(**wrong))
    with pytest.raises(UserError, match=f"objective.document_words.{next(iter(wrong))}="):
        cfg.check()


def test_the_vocabulary_is_asked_once_a_target_and_once_a_row() -> None:
    falling = MaskingConfig(rate=0.3, final_rate=0.2)
    assert ObjectiveConfig(masking=falling).predictions_per_token(64) == pytest.approx(0.25)
    with_words = ObjectiveConfig(masking=falling, document_words=DocumentWordsConfig(weight=1.0))
    assert with_words.predictions_per_token(64) == pytest.approx(0.25 + 1 / 64)


def test_frequencies_are_counted_whole_or_in_blocks_of_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.repeat(np.arange(5, 15), 100).astype(np.uint16)
    of = TokenTable(ids, np.array([0, 1000]), np.array([0, 1000]))
    assert torch.allclose(words_of(of, 15).log_share[5:].softmax(0), torch.full((10,), 0.1))
    monkeypatch.setattr(document_words, "_BLOCKS", 10)
    monkeypatch.setattr(document_words, "_BLOCK_TOKENS", 7)
    assert torch.allclose(words_of(of, 15).log_share[5:].softmax(0), torch.full((10,), 0.1))
