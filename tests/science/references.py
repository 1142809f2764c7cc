"""The same quantities written out in loops, one item and one pair at a time, without a look at the library's way."""

from itertools import combinations
from math import comb, exp

import numpy as np


def profile(failed) -> list[float]:
    n_models, n_items = len(failed), len(failed[0])
    counts = [0] * (n_models + 1)
    for i in range(n_items):
        counts[sum(int(failed[m][i]) for m in range(n_models))] += 1
    return [count / n_items for count in counts]


def chance_of_count(rates) -> list[float]:
    """Every one of the 2^M outcomes."""
    n = len(rates)
    found = [0.0] * (n + 1)
    for outcome in range(2**n):
        chance = 1.0
        for m, rate in enumerate(rates):
            chance *= rate if outcome >> m & 1 else 1 - rate
        found[bin(outcome).count("1")] += chance
    return found


def systemic(failed, size: int) -> float:
    n_models, n_items = len(failed), len(failed[0])
    total = 0.0
    for chosen in combinations(range(n_models), size):
        for i in range(n_items):
            total += all(failed[m][i] for m in chosen)
    return total / n_items / comb(n_models, size)


def consistency(right_a, right_b) -> float:
    n = len(right_a)
    agreed = sum(int(a == b) for a, b in zip(right_a, right_b, strict=True)) / n
    p, q = sum(right_a) / n, sum(right_b) / n
    chance = p * q + (1 - p) * (1 - q)
    return (agreed - chance) / (1 - chance)


def capa(one, other, gold) -> float:
    n, n_labels = len(gold), len(one[0])
    agreed = right_one = right_other = 0.0
    for i in range(n):
        for c in range(n_labels):
            agreed += one[i][c] * other[i][c] / n
        right_one += one[i][gold[i]] / n
        right_other += other[i][gold[i]] / n
    chance = right_one * right_other + (1 - right_one) * (1 - right_other) / (n_labels - 1)
    return (agreed - chance) / (1 - chance)


def wrong_agreement(one, other, gold) -> float:
    same = both = 0
    for a, b, y in zip(one, other, gold, strict=True):
        if a != y and b != y:
            both += 1
            same += int(a == b)
    return same / both


def outcome(failed, group_of) -> tuple[float, float, float]:
    """H_avg, H_unif, H_worst of deployments on the same people."""
    n_deployments, n_items = len(failed), len(failed[0])
    groups = sorted(set(group_of))
    expected = 1.0
    for j in range(n_deployments):
        expected *= sum(failed[j]) / n_items
    together, weighted, weights = [], 0.0, 0.0
    for g in groups:
        members = [i for i in range(n_items) if group_of[i] == g]
        product, weight = 1.0, 1.0
        for j in range(n_deployments):
            product *= sum(failed[j][i] for i in members) / len(members)
            weight *= len(members) / n_items
        together.append(product)
        weighted += weight * product
        weights += weight
    return weighted / weights / expected, sum(together) / len(groups) / expected, max(together) / expected


def decomposition(values) -> tuple[float, float, float]:
    """bias², V_pt, V_ft, from values[i][f][s]."""
    n_items, n_foundations, n_seeds = len(values), len(values[0]), len(values[0][0])
    finetuning = pretraining = loss = 0.0
    for item in values:
        inner, means = 0.0, []
        for seeds in item:
            mean = sum(seeds) / n_seeds
            means.append(mean)
            inner += sum((x - mean) ** 2 for x in seeds) / (n_seeds - 1) / n_foundations
            loss += sum((x - 1) ** 2 for x in seeds) / (n_seeds * n_foundations * n_items)
        grand = sum(means) / n_foundations
        outer = sum((m - grand) ** 2 for m in means) / (n_foundations - 1)
        finetuning += inner / n_items
        pretraining += (outer - inner / n_seeds) / n_items
    return loss - finetuning - pretraining, pretraining, finetuning


def hsic(left, right) -> float:
    """The definition, on N × N kernels."""
    n = len(left)
    k, m = left @ left.T, right @ right.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    first = np.trace(k @ m)
    second = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (one @ k @ m @ one)
    return float((first + second - third) / (n * (n - 3)))


def calibration_error(probabilities, gold, n_bins: int) -> float:
    n = len(gold)
    total = 0.0
    for b in range(n_bins):
        inside = [i for i in range(n) if b / n_bins < max(probabilities[i]) <= (b + 1) / n_bins]
        if inside:
            confidence = sum(max(probabilities[i]) for i in inside) / len(inside)
            right = sum(int(np.argmax(probabilities[i]) == gold[i]) for i in inside) / len(inside)
            total += len(inside) / n * abs(right - confidence)
    return total


def log_likelihood(logits, gold, temperature: float) -> float:
    """Mean NLL in nats."""
    total = 0.0
    for row, y in zip(logits, gold, strict=True):
        weights = [exp(x / temperature) for x in row]
        total -= np.log(weights[y] / sum(weights))
    return float(total / len(gold))


def mean_squares(scores) -> tuple[float, float, float]:
    """Of foundations, of task × foundation, of seeds, from scores[q][p][s]."""
    tasks, foundations, seeds = len(scores), len(scores[0]), len(scores[0][0])
    cell = [[sum(scores[q][p]) / seeds for p in range(foundations)] for q in range(tasks)]
    of_task = [sum(cell[q]) / foundations for q in range(tasks)]
    of_foundation = [sum(cell[q][p] for q in range(tasks)) / tasks for p in range(foundations)]
    grand = sum(of_task) / tasks
    first = tasks * seeds * sum((x - grand) ** 2 for x in of_foundation) / (foundations - 1)
    second = third = 0.0
    for q in range(tasks):
        for p in range(foundations):
            second += seeds * (cell[q][p] - of_task[q] - of_foundation[p] + grand) ** 2
            third += sum((x - cell[q][p]) ** 2 for x in scores[q][p])
    return first, second / ((foundations - 1) * (tasks - 1)), third / (tasks * foundations * (seeds - 1))
