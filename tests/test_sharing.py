"""Sharing from end to end on a toy: what a task's folder holds, what it costs, and that the foundation stays what it was."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors import safe_open

from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.memory import PeakMemory
from foundation.core.plain import to_plain
from foundation.model.sharing.config import SharingConfig, SharingMethod
from foundation.serving.config import PredictConfig
from foundation.serving.predict import predict
from foundation.task import cell as cell_module
from foundation.task.answer import examples_of
from foundation.task.costs import read_manifest, sharing_degree, verify_frozen
from foundation.task.finetuned import load_finetuned
from foundation.task.protocol import finetune
from foundation.task.results import StudyResult
from foundation.task.start import arm_config, find_start
from foundation.task.study_config import FinetuneConfig
from foundation.train.config import AdamWConfig, MuonConfig, Precision, TrainerConfig
from foundation.train.foundation import load_foundation
from tests.model.test_sharing import METHODS
from tests.task import toy


def run(cfg: FinetuneConfig) -> StudyResult:
    cfg.check()
    return finetune(cfg, to_plain(cfg))


def shared(method: str) -> SharingConfig:
    return replace(METHODS[method], lr_scale=3.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foundation, and a fine-tune of every method with one seed."""
    folder = tmp_path_factory.mktemp("runs")
    toy.lay_foundation(folder)
    task = toy.lay_task(folder / "data")
    for method in METHODS:
        run(toy.settings(folder, task, seeds=1, sharing=shared(method)))
    return folder


def cell(runs: Path, method: str) -> Path:
    return runs / f"small/finetune/toy/{method}/seed-0"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_reads_back_what_it_saved(runs: Path, method: str) -> None:
    scores = read_json(cell(runs, method) / "scores.json")
    # A prefix or a probe of random weights cannot do all that the others can.
    assert scores["value"] > (0.6 if method in ("prefix", "probe") else 0.85)
    assert scores["reload_difference"] < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_tasks_folder_holds_what_is_its_own(runs: Path, method: str) -> None:
    final, theirs = cell(runs, method) / "final", load_foundation(runs / "small/final")
    with safe_open(final / "model.safetensors", "pt") as file:
        own = set(file.keys())
    trained_anyway = {name for name in own if name in theirs.tensors}
    assert bool(trained_anyway) == (method == "top_k")
    assert not (final / "tokenizer.json").exists()
    costs = read_json(final.parent / "scores.json")["costs"]
    assert costs["stored_bytes"] == sum(path.stat().st_size for path in final.iterdir())
    assert 0 < costs["trainable"] < costs["parameters"]
    n_shared = costs["parameters"] * costs["shared_share"]
    assert n_shared == pytest.approx(costs["parameters"] - costs["trainable"])
    info = read_json(final / "config.json")
    assert info["shares"]["fingerprint"] == theirs.fingerprint == info["parent"]


def test_the_foundations_files_are_left_alone(runs: Path) -> None:
    before = read_json(runs / "small/final/config.json")["fingerprint"]
    assert load_foundation(runs / "small/final").fingerprint == before
    assert read_json(cell(runs, "probe") / "final/config.json")["fingerprint"] == before


@pytest.mark.parametrize("method", METHODS)
def test_predict_finds_the_foundation(runs: Path, method: str, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a good film\na bad plot\n")
    trainer = TrainerConfig(device="cpu", threads=1)
    predict(
        PredictConfig(
            run=str(cell(runs, method).parent),
            input=str(tmp_path / "in.txt"),
            output=str(tmp_path / "out.jsonl"),
            trainer=trainer,
        )
    )
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["text"] for answer in answers] == ["a good film", "a bad plot"]
    model = load_finetuned(cell(runs, method) / "final", torch.device("cpu"), batch_rows=2, precision=Precision.fp32)
    shares = model.answer(model.tokenize(examples_of(model, [{"text": "a good film"}]))).probabilities[0]
    assert list(answers[0]["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)


def test_runs_may_move_together_but_not_apart(runs: Path, tmp_path: Path) -> None:
    def load(final: Path) -> None:
        load_finetuned(final, torch.device("cpu"), batch_rows=2, precision=Precision.fp32)

    shutil.copytree(runs, tmp_path / "moved")
    load(cell(tmp_path / "moved", "lora") / "final")
    shutil.copytree(cell(runs, "lora") / "final", tmp_path / "alone")
    with pytest.raises(
        UserError, match=r"holds only what its task has changed in the foundation \w+, and that is not at"
    ):
        load(tmp_path / "alone")


def test_another_foundation_in_the_same_place_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "moved")
    other = toy.lay_foundation(tmp_path / "moved", seed=1)
    final = cell(tmp_path / "moved", "lora") / "final"
    with pytest.raises(UserError, match=f"is {other} now, and .* was made for the foundation"):
        load_finetuned(final, torch.device("cpu"), batch_rows=2, precision=Precision.fp32)


def test_what_a_task_added_to_an_encoder_is_not_dropped_in_silence(runs: Path, tmp_path: Path) -> None:
    cfg = toy.settings(runs, toy.lay_task(tmp_path), name="next", foundation=str(cell(runs, "lora") / "final"))
    with pytest.raises(
        UserError, match=r"weights that a task has added to its encoder, among them layers.0.attention.out.down"
    ):
        run(cfg)


def test_one_changed_bit_of_a_frozen_weight_is_caught(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), sharing=shared("lora"))
    beginning = find_start("small", cfg).begin(cfg, 2, 0)
    # 15 weights of the encoder, none of them trained.
    assert verify_frozen(beginning.objective, beginning.weights) == 15
    weight = beginning.objective.encoder.layers[1].attention.qkv.weight
    with torch.no_grad():
        weight.view(torch.int32)[5, 7] ^= 1
    with pytest.raises(
        RuntimeError, match=r"encoder.layers.1.attention.qkv.weight was frozen and is no longer what it is"
    ):
        verify_frozen(beginning.objective, beginning.weights)


def test_a_run_that_changes_a_frozen_weight_fails_and_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.lay_foundation(tmp_path)
    train = cell_module.train

    def train_and_flip(state, *rest, **named) -> None:
        train(state, *rest, **named)
        with torch.no_grad():
            state.objective.encoder.token_embedding.weight.view(torch.int32)[0, 0] ^= 1

    monkeypatch.setattr(cell_module, "train", train_and_flip)
    cfg = toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), epochs=1, sharing=shared("bitfit"))
    with pytest.raises(RuntimeError, match=r"encoder.token_embedding.weight was frozen"):
        run(cfg)
    assert not list(tmp_path.rglob("seed-0/scores.json"))
    assert not list(tmp_path.rglob("seed-0/final"))


def test_degrees_count_what_all_models_have_in_common(runs: Path) -> None:
    manifests = [read_manifest(cell(runs, method) / "tensors.json") for method in ("probe", "lora")]
    encoder = sum(size for name, (size, _) in manifests[0].items() if name.startswith("encoder."))
    totals = [sum(size for size, _ in manifest.values()) for manifest in manifests]
    assert sharing_degree(manifests) == pytest.approx([encoder / totals[0], encoder / totals[1]])
    assert sharing_degree([manifests[0]]) == [1.0]


def test_scratch_trains_every_weight_whatever_is_shared(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    cfg = toy.settings(
        tmp_path, toy.lay_task(tmp_path / "data"), epochs=1, seeds=1, compare="scratch", sharing=shared("lora")
    )
    first, second = run(cfg).arms
    assert first.summary["config"]["sharing"]["method"] == "lora"
    assert second.summary["config"]["sharing"] == {"method": "full", "lr_scale": 1.0}
    costs = second.summary["seeds"][0]["costs"]
    assert costs["trainable"] == costs["parameters"]
    # The same cells serve every method.
    assert (
        arm_config(cfg, to_plain(cfg), is_scratch=True)[1]
        == arm_config(replace(cfg, sharing=shared("probe")), to_plain(cfg), is_scratch=True)[1]
    )


def test_random_weights_may_have_a_rate_of_their_own(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    task = toy.lay_task(tmp_path / "data")
    cfg = toy.settings(tmp_path, task, epochs=1, seeds=1, compare="scratch", scratch_lr=2e-3)
    first, second = run(cfg).arms
    assert first.summary["config"]["optim"]["lr"] == cfg.optim.lr != 2e-3
    assert second.summary["config"]["optim"] == {**first.summary["config"]["optim"], "lr": 2e-3}
    # The foundation's cells are the same whatever the other arm's rate is, and are not run again; those of random weights are
    # not taken for what they are not.
    with pytest.raises(UserError, match=r"optim.lr"):
        run(replace(cfg, scratch_lr=1e-3))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"scratch_lr": 0.0}, "scratch_lr=0.0 must be above 0"),
        ({"scratch_lr": 0.1, "optim": MuonConfig(muon_lr=0.1, adamw=AdamWConfig(lr=0.1))}, "which only optim=adamw"),
    ],
)
def test_a_rate_of_random_weights_that_cannot_be_is_refused(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), **changed).check()


def test_models_need_not_be_kept(tmp_path: Path) -> None:
    toy.lay_foundation(tmp_path)
    arm = run(toy.settings(tmp_path, toy.lay_task(tmp_path / "data"), epochs=1, seeds=1, keep_models=False)).arms[0]
    assert not (arm.folder / "seed-0/final").exists()
    assert arm.summary["seeds"][0]["costs"]["stored_bytes"] is None
    assert len(arm.predictions[0]) == 60


def test_peak_memory_is_that_of_the_block() -> None:
    with PeakMemory("cpu") as peak:
        np.ones(8 << 20)  # 64 MiB, given back at once
    with PeakMemory("cpu") as small:
        np.ones(1 << 10)
    if peak.bytes is None or small.bytes is None:
        pytest.skip("this system does not tell")
    assert peak.bytes > 60 << 20
    assert small.bytes < 20 << 20


def test_a_process_s_first_cell_needs_no_more_memory_than_its_second(tmp_path: Path) -> None:
    """In a process of its own: here libraries have set up what they need long ago."""
    toy.lay_foundation(tmp_path)
    program = (
        "import json, sys; from pathlib import Path; from tests.task import toy; from tests.test_sharing import run; "
        "folder = Path(sys.argv[1]); data = toy.lay_task(folder / 'data'); "
        "arm = run(toy.settings(folder, data, epochs=1, seeds=3)).arms[0]; "
        "print(json.dumps([seed['training_memory_bytes'] for seed in arm.summary['seeds']]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    first, *others = json.loads(done.stdout.splitlines()[-1])
    if first is None:
        pytest.skip("this system does not tell")
    assert first < 2 * max(others)


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_folder() / "sharing").glob("*.yaml")))
def test_every_sharing_file_composes(name: str) -> None:
    register(FinetuneConfig, "finetune")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("finetune", [f"sharing={name}"]), FinetuneConfig)
    assert cfg.sharing.method is SharingMethod(name)
    assert not cfg.sharing.problems()
