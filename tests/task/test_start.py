"""Where a fine-tuning begins, and the stabilisers: which layers start anew, and at which rate each learns."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from foundation.core.errors import UserError
from foundation.task.start import find_start, rate_scale
from foundation.train.config import AdamWConfig, MuonConfig
from foundation.train.optim import build_optimizers
from tests.builders import bert_config
from tests.model.test_share_layers import encoder_of
from tests.task import toy
from tests.test_sharing import shared


def test_a_layers_rate_is_that_of_the_layer_above_times_the_decay(tmp_path: Path) -> None:
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path), layer_lr_decay=0.5)
    rates = {
        "heads.out.weight": 1,
        "encoder.final_norm.weight": 1,
        "encoder.layers.2.attention.qkv.weight": 0.5,
        "encoder.layers.0.attention.qkv.weight": 0.125,
        "encoder.token_embedding.weight": 0.0625,
        "encoder.embedding_norm.weight": 0.0625,
    }
    assert {name: rate_scale(cfg, 3, name) for name in rates} == rates


def test_a_sharing_method_scales_all_rates(tmp_path: Path) -> None:
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path), sharing=shared("lora"), layer_lr_decay=0.5)
    assert rate_scale(cfg, 3, "heads.out.weight") == 3.0
    assert rate_scale(cfg, 3, "encoder.layers.2.attention.qkv.down.weight") == 1.5


@pytest.mark.parametrize("optim", [AdamWConfig(lr=0.1), MuonConfig(muon_lr=0.1, adamw=AdamWConfig(lr=0.1))])
def test_every_parameter_is_stepped_at_its_own_rate(tmp_path: Path, optim: AdamWConfig | MuonConfig) -> None:
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path), layer_lr_decay=0.5)
    module = torch.nn.ModuleDict({"encoder": encoder_of(bert_config())})
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        names[id(parameter)]: group["lr"]
        for optimizer in build_optimizers(module, optim, partial(rate_scale, cfg, 3))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {name: pytest.approx(0.1 * rate_scale(cfg, 3, name)) for name in names.values()}


def test_the_last_layers_start_anew_and_the_others_do_not(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), reinit_layers=1)
    start = find_start("small", cfg)
    beginning, again, other = (start.begin(cfg, 2, seed) for seed in (0, 0, 1))
    theirs = start.foundation.encoder_tensors
    state = beginning.objective.state_dict()
    changed = {name for name in theirs if not torch.equal(state[name], theirs[name])}
    # Norms have no biases here and are ones before and after.
    assert changed == {name for name in theirs if ".layers.1." in name and "norm" not in name}
    assert all(torch.equal(state[name], tensor) for name, tensor in again.objective.state_dict().items())
    assert not torch.equal(
        state["encoder.layers.1.attention.qkv.weight"],
        other.objective.state_dict()["encoder.layers.1.attention.qkv.weight"],
    )
    assert beginning.foundation == start.foundation.fingerprint


@pytest.mark.parametrize("spec", ["small", "scratch"])
def test_a_task_has_its_own_dropout_everywhere_whatever_pretraining_had(tmp_path: Path, spec: str) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), dropout=0.3)
    start = find_start(spec, cfg)
    assert start.foundation.model.dropout == start.foundation.model.attention_dropout == 0
    objective = start.begin(cfg, 2, 0).objective
    assert [layer.attention.dropout for layer in objective.encoder.layers] == [0.3] * 2
    assert [layer.dropout for layer in objective.encoder.layers] == [0.3] * 2
    assert objective.encoder.dropout.p == objective.heads.dropout.p == 0.3


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({"foundation": "mine", "compare": "scratch"}, "mine"),
        ({"foundation": "scratch", "compare": "mine"}, "mine"),
        ({"foundation": "scratch"}, "small"),
        ({"foundation": "mine", "compare": "scratch", "like": "small"}, "small"),
    ],
)
def test_random_weights_have_the_shape_of_the_foundation_beside_them(
    tmp_path: Path, changed: dict[str, object], taken: str
) -> None:
    for name in ("small", "mine"):
        toy.lay_foundation(tmp_path, name)
    start = find_start("scratch", toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), **changed))
    assert (start.is_scratch, start.foundation.path) == (True, tmp_path / taken / "final")
    assert start.folder == tmp_path / taken / "finetune/toy/scratch"


def test_a_parent_that_is_not_there_is_refused(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), parent=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no finished fine-tune .*nowhere to start from"):
        find_start("small", cfg)


def test_the_command_line_names_the_tasks_there_are(tmp_path: Path) -> None:
    words = ["task=suite", "task.tasks=[sst2,nothing]", f"runs_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "foundation.finetune", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no task nothing: choose among ")
    assert ", mrpc, " in done.stderr
    assert "Traceback" not in done.stderr
