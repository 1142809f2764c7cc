"""Spoilt tokens: what is spoilt, what is asked, the same however rows are dealt out; and that the question can be learnt."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from foundation.core.errors import UserError
from foundation.core.randomness import RowRng
from foundation.data.batches import Batch, Pairs, PretrainingBatches
from foundation.data.config import BatchesConfig
from foundation.data.corpus import TokenTable
from foundation.objective.base import Example
from foundation.objective.config import DetectionConfig, MaskingConfig, ObjectiveConfig
from foundation.objective.masked_lm import IGNORED
from foundation.objective.pretraining import PretrainingObjective
from foundation.objective.token_detection import SOUND, SPOILT, WINDOW, is_asked
from foundation.train.held_out import HeldOut
from foundation.train.loop import train, train_step
from tests.builders import SPECIALS, modern_config, table
from tests.objective.test_document_words import state_of

RNG = RowRng(0, "mask", 3)


def batches(of: TokenTable, rows: int = 12) -> PretrainingBatches:
    cfg = BatchesConfig(rows_per_step=rows, seq_len=20, short_share=0.3)
    return PretrainingBatches(of, SPECIALS, cfg, pairs=Pairs.none, seed=0)


def objective_of(masking: MaskingConfig | None = None, vocab_size: int = 101, **changes: float) -> PretrainingObjective:
    torch.manual_seed(0)
    cfg = ObjectiveConfig(masking=masking or MaskingConfig(), detection=DetectionConfig(**{"weight": 1.0, **changes}))
    return PretrainingObjective(
        cfg, modern_config(vocab_size=vocab_size), SPECIALS, np.zeros(vocab_size, bool), seq_len=40
    )


def many(objective: PretrainingObjective, steps: int = 20) -> list[tuple[Batch, Example]]:
    rows = batches(table())
    return [
        (batch, objective.corrupt(batch, RowRng(0, "mask", step), 0.0))
        for step in range(steps)
        for batch in [rows.at(step)]
    ]


def test_spoilt_is_what_is_seen_and_did_not_stand_there() -> None:
    for batch, example in many(objective_of()):
        ids, spoilt = example.ids.numpy(), example.of_tokens["spoilt"].numpy()
        in_sight = batch.maskable & (ids != SPECIALS.mask)
        assert np.array_equal(spoilt != IGNORED, in_sight)
        assert np.array_equal(spoilt[in_sight] == SPOILT, (ids != batch.ids)[in_sight])
        assert ((spoilt == SOUND) | (spoilt == SPOILT))[in_sight].all()


def test_what_is_to_be_predicted_is_left_as_masking_put_it() -> None:
    plain, rows = objective_of(weight=0.0), batches(table())
    for step in range(10):
        batch, rng = rows.at(step), RowRng(0, "mask", step)
        masked, spoilt = plain.masking(batch, rng, 0.0), objective_of(rate=1.0).corrupt(batch, rng, 0.0)
        assert torch.equal(masked.targets_at, spoilt.targets_at) and torch.equal(masked.targets, spoilt.targets)
        assert torch.equal(masked.ids[masked.targets_at], spoilt.ids[masked.targets_at])


def test_no_copy_shows_what_is_to_be_predicted() -> None:
    """Every token of a row stands there once: then none that is asked for may be seen."""
    batch = batches(table()).at(0)
    batch = replace(batch, ids=np.where(batch.maskable, 5 + np.arange(len(batch.ids)), batch.ids))
    objective = objective_of(MaskingConfig(mask_share=1.0, random_share=0.0), vocab_size=2000, rate=1.0, swap_share=0.0)
    copied = 0
    for step in range(20):
        example = objective.corrupt(batch, RowRng(0, "mask", step), 0.0)
        copied += int((example.of_tokens["spoilt"] == SPOILT).sum())
        assert not np.isin(example.targets.numpy(), example.ids.numpy()).any()
    assert copied > 50


@pytest.mark.parametrize("swap_share", [0.0, 1.0])
def test_a_spoilt_token_comes_from_its_own_row(swap_share: float) -> None:
    objective = objective_of(MaskingConfig(random_share=0.0), rate=1.0, swap_share=swap_share)
    moved = 0
    for batch, example in many(objective):
        ends = batch.lengths.cumsum()
        for start, end in zip(ends - batch.lengths, ends, strict=True):
            was, now = batch.ids[start:end], example.ids.numpy()[start:end]
            kept = now != SPECIALS.mask
            assert np.isin(now[kept], was).all()
            at = np.flatnonzero(kept & (now != was))
            moved += len(at)
            if swap_share:
                # Every swapped token stands, unspoilt, within a window of where it is now.
                assert np.array_equal(np.sort(now[at]), np.sort(was[at]))
                assert all((np.abs(at - place) < WINDOW)[was[at] == now[place]].any() for place in at)
    assert moved > 200


def test_rate_is_the_share_of_windows() -> None:
    """Of tokens that differ, a swap spoils two and a copy one; windows with a target in the way are left out."""
    shares = []
    for rate in (0.2, 0.4):
        objective = objective_of(MaskingConfig(rate=1e-9, final_rate=1e-9), vocab_size=5000, rate=rate, swap_share=1.0)
        of = TokenTable(np.arange(5, 5000).astype(np.uint16), *[np.array([0, 4995])] * 2)
        rows = batches(of, rows=100).at(0)
        example = objective.corrupt(rows, RNG, 0.0)
        shares.append(
            float((example.of_tokens["spoilt"] == SPOILT).sum() / is_asked(example.of_tokens["spoilt"]).sum())
        )
    # Half of a window's tokens are moved, and windows at the ends of rows do not fit.
    assert shares[1] == pytest.approx(2 * shares[0], rel=0.2) and 0.05 < shares[0] < 0.1


def test_masks_do_not_depend_on_it() -> None:
    rows = batches(table()).at(4)
    with_it, without = objective_of().corrupt(rows, RNG, 0.0), objective_of(weight=0.0).corrupt(rows, RNG, 0.0)
    assert torch.equal(with_it.targets_at, without.targets_at) and not without.of_tokens


def test_rows_dealt_to_ranks_are_spoilt_alike() -> None:
    objective, rows = objective_of(), batches(table())
    whole = objective.corrupt(rows.at(5), RNG, 0.0)
    parts = [objective.corrupt(rows.at(5, rank, 3), RNG, 0.0) for rank in range(3)]
    assert torch.equal(torch.cat([part.ids for part in parts]), whole.ids)
    assert torch.equal(torch.cat([part.of_tokens["spoilt"] for part in parts]), whole.of_tokens["spoilt"])


def test_the_loss_is_torchs_binary_cross_entropy() -> None:
    objective = objective_of(weight=3.0).double()
    example = objective.corrupt(batches(table()).at(0), RNG, 0.0)
    hidden_TD = objective.encoder(example.ids, example.segments, example.layout())
    sound_T, spoilt_T = objective.heads["detection"](hidden_TD).unbind(1)
    asked = is_asked(example.of_tokens["spoilt"])
    expected = F.binary_cross_entropy_with_logits(
        (spoilt_T - sound_T)[asked], example.of_tokens["spoilt"][asked].double()
    )
    losses = dict(zip(objective.terms, objective(example, objective.count(example)), strict=True))
    torch.testing.assert_close(losses["detection_loss"], 3 * expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("micro_batch_rows", [1, 5])
def test_gradients_are_the_same_however_the_rows_are_cut(micro_batch_rows: int) -> None:
    found = []
    for rows in (0, micro_batch_rows):
        objective = objective_of(weight=2.0).double()
        losses, _ = train_step(state_of(objective, 1), objective.corrupt(batches(table()).at(0), RNG, 0.0), rows)
        found.append((losses.tolist(), [parameter.grad for parameter in objective.parameters()]))
    (losses, whole), (cut_losses, cut) = found
    assert cut_losses == pytest.approx(losses, rel=1e-6)
    for one, other in zip(whole, cut, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_it_is_learnt_by_heart() -> None:
    objective = objective_of(weight=10.0)
    losses = []
    train(
        state_of(objective, 60),
        batches(table()),
        seed=0,
        micro_batch_rows=0,
        only_step=0,
        on_event=lambda _, report: not losses.append(float(report.losses[1]) / 10),
    )
    assert losses[0] > 0.5 and losses[-1] < 0.1


def test_held_out_masks_are_scored_on_sound_text_and_spoilt_tokens_beside_them() -> None:
    objective, plain = objective_of(), objective_of(weight=0.0)
    (term,) = objective.asked
    exams = [HeldOut(one, table(seed=1), seq_len=20, rows=64) for one in (objective, plain)]
    for example, other in zip(exams[0].examples(), exams[1].examples(), strict=True):
        assert torch.equal(example.ids, other.ids) and not example.of_tokens
    asked = [
        example.of_tokens["spoilt"][is_asked(example.of_tokens["spoilt"])]
        for example in exams[0].changed_examples(term)
    ]
    objective.heads["detection"].classify.weight.data.zero_()
    objective.heads["detection"].classify.bias.data = torch.tensor([2.0, 0.0])
    shares = torch.cat(asked).double().mean()
    expected = float(F.softplus(torch.tensor(-2.0)) * (1 - shares) + F.softplus(torch.tensor(2.0)) * shares)
    found = exams[0].metrics(state_of(objective, 1))
    assert found["eval/detection_loss"] == pytest.approx(expected, rel=1e-5)
    assert "eval/detection_loss" not in exams[1].metrics(state_of(plain, 1))


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"rate": 0.0}, {"rate": 1.5}, {"swap_share": -0.1}])
def test_settings_that_cannot_work_are_named(wrong: dict[str, float]) -> None:
    cfg = ObjectiveConfig(masking=MaskingConfig(), detection=DetectionConfig(**wrong))
    with pytest.raises(UserError, match=f"objective.detection.{next(iter(wrong))}="):
        cfg.check()
