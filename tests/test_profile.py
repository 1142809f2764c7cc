"""Where a step's time goes: every operator is of one kind, and nothing is counted twice."""

import pytest
import torch
from torch.profiler import profile, record_function

from foundation.pretraining.profile import OPTIMIZER, by_kind, table


@pytest.fixture(scope="module")
def events() -> list[object]:
    """A product of the model's, and a larger one inside an optimizer's step, as Muon has them."""
    small, large = torch.ones(128, 128), torch.ones(512, 512)
    with profile() as profiler:
        torch.nn.functional.gelu(small @ small)
        with record_function("Optimizer.step#Muon.step"):
            large @ large
    return list(profiler.events())


def test_products_inside_an_optimizers_step_are_the_optimizers(events: list[object]) -> None:
    spent = by_kind(events, on_gpu=False)
    assert spent[OPTIMIZER] > spent["matrix products"] > 0
    assert spent["norms, activations, rotation"] > 0


def test_the_kinds_add_up_to_the_time_of_all_operators(events: list[object]) -> None:
    whole = sum(event.cpu_time_total for event in events if event.cpu_parent is None)
    assert sum(by_kind(events, on_gpu=False).values()) == pytest.approx(whole)


def test_the_table_is_in_milliseconds_a_step() -> None:
    lines = table({"matrix products": 30_000.0, "loss": 10_000.0}, 4, "the processor").splitlines()
    assert lines[0].startswith("a step takes 10.0 ms of the processor")
    assert [line.split()[-3:] for line in lines[1:]] == [["7.5", "ms", "75.0%"], ["2.5", "ms", "25.0%"]]
