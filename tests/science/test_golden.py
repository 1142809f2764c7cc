"""Published figures, and references written in loops, against the vectorised functions."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from foundation.core.errors import UserError
from foundation.science import calibration, failures, pairs, similarity, variance
from tests.science import references

EXACT = {"rtol": 1e-12, "atol": 1e-12}
# How many of 100 BERTs that share one foundation get an item of MNLI's dev set right; index = 0 … 100 (McCoy et al. 2020).
# fmt: off
HISTOGRAM = [
    526, 81, 53, 36, 32, 42, 32, 24, 17, 19, 20, 21, 21, 15, 16, 25, 18, 22, 22, 14, 26, 12, 13, 12, 20, 21, 11, 19, 12, 16,
    18, 9, 14, 11, 9, 11, 9, 11, 10, 20, 5, 14, 13, 14, 12, 18, 10, 8, 12, 14, 8, 19, 7, 8, 21, 12, 12, 18, 18, 13, 20, 9,
    14, 16, 21, 21, 16, 17, 22, 20, 17, 13, 18, 17, 25, 20, 15, 21, 22, 26, 29, 24, 16, 24, 32, 28, 29, 29, 40, 35, 38, 41,
    54, 62, 67, 83, 93, 119, 158, 322, 6526,
]
# fmt: on
N_RIGHT = np.repeat(np.arange(101), HISTOGRAM)


def random_failures(n_models: int = 6, n_items: int = 60, seed: int = 0) -> np.ndarray:
    """Models of unequal accuracy on items of unequal difficulty, so that nothing cancels."""
    draws = np.random.default_rng(seed)
    rates = np.clip(draws.beta(0.7, 1.5, n_items) + draws.normal(0, 0.1, (n_models, 1)), 0.02, 0.98)
    return draws.random((n_models, n_items)) < rates


def random_answers(n_labels: int, n_models: int = 4, n_items: int = 50, seed: int = 1):
    draws = np.random.default_rng(seed)
    logits = draws.normal(0, 2, (n_models, n_items, n_labels)) + draws.normal(0, 1, (n_items, n_labels))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return logits, probabilities, draws.integers(n_labels, size=n_items)


def test_a_hundred_berts_of_one_foundation() -> None:
    assert (len(HISTOGRAM), sum(HISTOGRAM)) == (101, 9815)
    found = failures.exchangeable_consistency(100 - N_RIGHT, 100)
    assert found.accuracy == pytest.approx(0.8433927662, abs=5e-11)
    assert found.observed == pytest.approx(0.9372446420, abs=5e-11)
    assert found.expected == pytest.approx(0.7358371837, abs=5e-11)
    assert found.kappa == pytest.approx(0.7624368227, abs=5e-11)
    assert failures.systemic_failure(100 - N_RIGHT, 100, 100) == pytest.approx(0.0535914417, abs=5e-11)
    assert failures.systemic_failure(N_RIGHT, 100, 100) == pytest.approx(0.6649006623, abs=5e-11)


@pytest.mark.parametrize(
    ("size", "all_fail", "all_right"),
    [(2, 0.125230, 0.812015), (3, 0.111403, 0.794464), (5, 0.097207, 0.773187), (10, 0.082130, 0.745758)],
)
def test_systemic_failure_of_the_hundred_by_size(size: int, all_fail: float, all_right: float) -> None:
    assert failures.systemic_failure(100 - N_RIGHT, 100, size) == pytest.approx(all_fail, abs=5e-7)
    assert failures.systemic_failure(N_RIGHT, 100, size) == pytest.approx(all_right, abs=5e-7)


@pytest.mark.parametrize(
    ("pretraining", "finetuning", "within", "across", "share"),
    [
        (0.00375, 0.0128, 0.0256, 0.0331, 0.227),
        (0.00254, 0.0113, 0.0227, 0.0277, 0.184),
        (0.00333, 0.0104, 0.0208, 0.0275, 0.243),
        (0.00210, 0.00968, 0.0194, 0.0236, 0.178),
        (0.00114, 0.0102, 0.0205, 0.0228, 0.101),
    ],
    ids=["mini", "small", "medium", "base", "large"],
)
def test_the_published_decomposition_of_sst2(
    pretraining: float, finetuning: float, within: float, across: float, share: float
) -> None:
    """Zhong et al. 2021: what they print about five sizes follows from two of the columns, to their rounding: 5e-5 in V_ft,
    5e-6 in V_pt, both twice, and 5e-5 in the difference."""
    found = variance.Decomposition(0.0, pretraining, finetuning)
    assert found.share == pytest.approx(share, abs=6e-4)
    assert found.within == pytest.approx(within, abs=1.6e-4)
    assert found.across == pytest.approx(across, abs=1.6e-4)


def test_differences_are_twice_the_variances() -> None:
    """within = 2·V_ft and across = 2·(V_ft + V_pt), the differences counted pair by pair."""
    correct = np.random.default_rng(0).random((80, 4, 3)) < np.random.default_rng(1).random((80, 4, 1))
    found = variance.nested_decomposition(correct)
    within, across = variance.mean_differences(correct)
    assert within == pytest.approx(found.within, rel=1e-12)
    assert across == pytest.approx(found.across, rel=1e-12)
    assert found.share == pytest.approx(1 - within / across, rel=1e-12)


def test_decomposition_equals_its_loops() -> None:
    correct = np.random.default_rng(0).random((40, 5, 3)) < np.random.default_rng(1).random((40, 5, 1))
    found = variance.nested_decomposition(correct)
    np.testing.assert_allclose(
        [found.bias_squared, found.pretraining, found.finetuning],
        references.decomposition(correct.astype(float).tolist()),
        **EXACT,
    )


def test_profile_and_subsets_equal_their_loops() -> None:
    failed = random_failures()
    np.testing.assert_allclose(failures.failure_profile(failed), references.profile(failed), **EXACT)
    for size in (1, 2, 3, 6):
        found = failures.systemic_failure(failed.sum(axis=0), len(failed), size)
        assert found == pytest.approx(references.systemic(failed, size), abs=1e-12)
        chosen = np.array(list(combinations(range(len(failed)), size)))
        assert failures.tuple_failures(failed, chosen).mean() == pytest.approx(found, abs=1e-12)


def test_poisson_binomial_equals_every_outcome_and_the_binomial() -> None:
    rates = np.random.default_rng(0).random(9)
    np.testing.assert_allclose(failures.poisson_binomial(rates), references.chance_of_count(rates), **EXACT)
    np.testing.assert_allclose(
        failures.poisson_binomial(np.full(200, 0.3)), stats.binom.pmf(np.arange(201), 200, 0.3), rtol=1e-9, atol=1e-15
    )


def test_outcome_homogenization_equals_its_loops() -> None:
    failed = random_failures(3, 90)
    groups = np.random.default_rng(2).integers(4, size=90)
    counts = np.array([[np.sum(groups == g) for g in range(4)]] * 3)
    fails = np.array([[row[groups == g].sum() for g in range(4)] for row in failed])
    found = failures.outcome_homogenization(fails, counts)
    np.testing.assert_allclose(
        [found.average, found.uniform, found.worst], references.outcome(failed.astype(int), groups.tolist()), **EXACT
    )


def test_groups_of_one_are_the_individual_measure() -> None:
    failed = random_failures(3, 70)
    found = failures.outcome_homogenization(failed.astype(float), np.ones(failed.shape, dtype=np.int64))
    assert found.average == pytest.approx(failures.individual_homogenization(failed), rel=1e-12)
    assert found.uniform == pytest.approx(found.average, rel=1e-12)


def test_an_empty_group_is_left_out_and_does_not_count_as_failure() -> None:
    fails, counts = np.array([[2.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), np.array([[8, 4, 0], [8, 4, 5]])
    found = failures.outcome_homogenization(fails, counts)
    assert found.n_groups == 2
    assert found.worst == pytest.approx((2 / 8) * (3 / 8) / ((3 / 12) * (4 / 17)))
    with pytest.raises(UserError, match="no group has items in every deployment"):
        failures.outcome_homogenization(fails, np.array([[8, 0, 0], [0, 4, 5]]))


def test_gains_are_told_apart_by_whether_anyone_was_right_before() -> None:
    before = np.array([[1, 1, 1, 0], [1, 0, 1, 0]], dtype=bool)
    assert failures.share_of_systemic(before, 0, np.array([0, 0, 1, 0], dtype=bool)) == 0.5


def test_pair_measures_equal_their_loops() -> None:
    failed = random_failures()
    kappa, phi = pairs.error_consistency(failed), pairs.failure_correlation(failed)
    for a, b in combinations(range(len(failed)), 2):
        assert kappa[a, b] == pytest.approx(
            references.consistency((~failed[a]).tolist(), (~failed[b]).tolist()), abs=1e-12
        )
        assert phi[a, b] == pytest.approx(np.corrcoef(failed[a], failed[b])[0, 1], abs=1e-12)


@pytest.mark.parametrize("n_labels", [2, 4])
def test_capa_equals_its_loops(n_labels: int) -> None:
    _, probabilities, gold = random_answers(n_labels)
    predicted = probabilities.argmax(axis=-1)
    soft, hard = pairs.capa(probabilities, gold), pairs.hard_capa(predicted, gold, n_labels)
    one_hot = np.eye(n_labels)[predicted]
    apart = pairs.disagreement(predicted)
    for a, b in combinations(range(len(predicted)), 2):
        assert soft[a, b] == pytest.approx(references.capa(probabilities[a], probabilities[b], gold), abs=1e-12)
        assert hard[a, b] == pytest.approx(references.capa(one_hot[a], one_hot[b], gold), abs=1e-12)
        assert apart[a, b] == pytest.approx(np.mean(predicted[a] != predicted[b]), abs=1e-12)


def test_hard_capa_of_two_labels_is_error_consistency_and_soft_capa_of_oneself_is_not_one() -> None:
    _, probabilities, gold = random_answers(2)
    predicted = probabilities.argmax(axis=-1)
    np.testing.assert_allclose(pairs.hard_capa(predicted, gold, 2), pairs.error_consistency(predicted != gold), **EXACT)
    assert (np.diag(pairs.capa(probabilities, gold)) < 0.9).all()


def test_wrong_agreement_equals_its_loops_and_refuses_two_labels() -> None:
    _, probabilities, gold = random_answers(4, n_items=200)
    predicted = probabilities.argmax(axis=-1)
    found = pairs.wrong_agreement(predicted, gold, 4)
    assert found.chance == pytest.approx(1 / 3)
    for a, b in combinations(range(len(predicted)), 2):
        assert found.share[a, b] == pytest.approx(
            references.wrong_agreement(predicted[a], predicted[b], gold), abs=1e-12
        )
    with pytest.raises(UserError, match="always 1 with 2 labels: use error consistency"):
        pairs.wrong_agreement(predicted, gold, 2)


def test_identical_models_agree_beyond_chance_entirely() -> None:
    failed = np.repeat(random_failures(1, 300), 4, axis=0)
    np.testing.assert_allclose(pairs.error_consistency(failed), 1.0, **EXACT)
    correct = ~failed.T.reshape(300, 2, 2)
    found = variance.nested_decomposition(correct)
    assert (found.pretraining, found.finetuning, found.across - found.within) == (0, 0, 0)
    assert np.isnan(found.share)


def test_residual_correlation_is_pearsons() -> None:
    draws = np.random.default_rng(0)
    gold, predicted = draws.normal(size=70), draws.normal(size=(3, 70))
    found = pairs.residual_correlation(predicted, gold)
    np.testing.assert_allclose(found, np.corrcoef(predicted - gold), **EXACT)


def test_debiased_cka_equals_the_definition_on_kernels() -> None:
    draws = np.random.default_rng(0)
    x, y = draws.normal(3, 1, (25, 7)), draws.normal(-2, 4, (25, 4))
    y[:, :2] += x[:, :2]
    own = references.hsic(x, x) * references.hsic(y, y)
    assert similarity.debiased_cka(x, y) == pytest.approx(references.hsic(x, y) / own**0.5, abs=1e-12)


def test_cka_ignores_rotation_and_scale_and_is_about_zero_for_wide_noise() -> None:
    """The usual estimate calls unrelated features alike where the width is that of the items; this one does not."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(200, 180))
    turn = np.linalg.qr(draws.normal(size=(180, 180)))[0]
    assert similarity.debiased_cka(x, 3 * x @ turn + 5) == pytest.approx(1, abs=1e-10)
    noise = draws.normal(size=(200, 180))
    assert abs(similarity.debiased_cka(x, noise)) < 0.03
    assert similarity.biased_cka(x, noise) > 0.4


def test_cka_adds_up_over_minibatches() -> None:
    draws = np.random.default_rng(0)
    x = draws.normal(size=(120, 5))
    y = x + draws.normal(size=(120, 5))
    parts = similarity.cka_over_batches([(x[n : n + 40], y[n : n + 40]) for n in (0, 40, 80)])
    assert parts == pytest.approx(similarity.debiased_cka(x, y), abs=0.05)
    with pytest.raises(UserError, match="CKA needs the same four or more items"):
        similarity.debiased_cka(x[:3], y[:3])


def test_calibration_equals_its_loops() -> None:
    logits, probabilities, gold = random_answers(3, n_items=300)
    # Labels that the logits know about; else no temperature is high enough.
    gold = np.where(np.arange(300) % 3 > 0, logits.mean(axis=0).argmax(axis=1), gold)
    for one, shares in zip(logits, probabilities, strict=True):
        found = calibration.calibration(one, gold)
        assert found.ece == pytest.approx(references.calibration_error(shares, gold, 15), abs=1e-12)
        assert found.nll == pytest.approx(references.log_likelihood(one, gold, 1.0), abs=1e-12)
        assert found.brier == pytest.approx(
            np.mean([sum((p - (c == y)) ** 2 for c, p in enumerate(row)) for row, y in zip(shares, gold, strict=True)]),
            abs=1e-12,
        )
        best = references.log_likelihood(one, gold, found.temperature)
        for other in (0.99, 1.01):
            assert best < references.log_likelihood(one, gold, found.temperature * other)


def test_the_temperature_that_was_put_in_is_found() -> None:
    draws = np.random.default_rng(0)
    logits = draws.normal(0, 2, (40_000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gold = (draws.random((40_000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    assert calibration.fit_temperature(2.5 * logits, gold) == pytest.approx(2.5, rel=0.03)
    always_right = np.eye(2)[[0, 1, 1]] * 4
    assert calibration.fit_temperature(always_right, np.array([0, 1, 1])) < 0.1


def test_each_half_is_scaled_by_the_temperature_of_the_other() -> None:
    draws = np.random.default_rng(0)
    gold = draws.integers(3, size=400)
    logits = draws.normal(size=(400, 3)) + np.eye(3)[gold]
    logits[::2] *= 4
    even, odd = (calibration.fit_temperature(logits[side::2], gold[side::2]) for side in (0, 1))
    assert even > 3 * odd
    scaled = calibration.scale_by_other_half(logits, gold)
    np.testing.assert_allclose(scaled[::2], logits[::2] / odd, **EXACT)
    np.testing.assert_allclose(scaled[1::2], logits[1::2] / even, **EXACT)


def test_inheritance_has_the_mean_squares_of_its_loops() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 6, 4)) + np.random.default_rng(1).normal(size=(1, 6, 1))
    found = variance.inheritance(scores)
    first, second, third = references.mean_squares(scores.tolist())
    assert found.seed == pytest.approx(third, abs=1e-12)
    assert found.interaction == pytest.approx((second - third) / 4, abs=1e-12)
    assert found.foundation == pytest.approx((first - second) / 12, abs=1e-12)
    means = scores.mean(axis=2)
    expected = np.mean([np.corrcoef(means[a], means[b])[0, 1] for a, b in combinations(range(3), 2)])
    assert found.correlation == pytest.approx(expected, abs=1e-12)


def test_scores_of_tasks_are_made_comparable() -> None:
    scores = np.array([[0.8, 0.9], [0.6, 0.6]])
    normal = variance.normalised_score(scores, np.array([[0.5], [0.5]]))
    np.testing.assert_allclose(normal, [[0.6, 0.8], [0.2, 0.2]])
    np.testing.assert_allclose(variance.spread_over_tasks(normal), [0.4 / 2**0.5, 0.6 / 2**0.5])
    gap = variance.specificity_gap(np.array([0.8, 0.82]), np.array([0.7, 0.71, 0.75]))
    expected = stats.ttest_ind([0.8, 0.82], [0.7, 0.71, 0.75], equal_var=False).confidence_interval()
    assert (gap.difference, gap.low, gap.high) == pytest.approx((0.09, expected.low, expected.high))
    assert np.isnan(variance.specificity_gap(np.array([0.8]), np.array([0.7, 0.71])).low)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: failures.systemic_failure(np.array([1, 2]), 3, 4),
            "systemic failure of 4 models needs at least as many",
        ),
        (lambda: failures.individual_homogenization(np.zeros((2, 5), dtype=bool)), "a model never fails"),
        (lambda: variance.nested_decomposition(np.ones((5, 3, 1))), "3 foundations × 1 seeds cannot be split"),
        (lambda: variance.inheritance(np.ones((2, 2, 2))), "needs 2 tasks, 3 foundations and 2 seeds, and has 2, 2, 2"),
        (lambda: variance.spread_over_tasks(np.ones((1, 4))), "needs at least two tasks"),
        (lambda: calibration.fit_temperature(np.ones((0, 2)), np.ones(0, dtype=int)), "needs items to be fitted on"),
    ],
)
def test_what_cannot_be_estimated_is_refused(call, words: str) -> None:
    with pytest.raises(UserError, match=words):
        call()
