"""The command as a user runs it: from text to a foundation, killed and resumed, and every mistake that one can make."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from foundation.config import conf_folder
from foundation.core import distributed
from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.logger import read_metrics
from foundation.core.plain import to_plain
from foundation.evaluation.subject import load_subject
from foundation.exchange.lineage import trace
from foundation.pretraining import pretrain
from foundation.train.config import Precision
from foundation.train.foundation import load_foundation
from tests.test_config import RECIPES, composed

ROOT = Path(__file__).parent.parent
# One thread a process: several runs of a tiny model share two cores.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
TINY = [
    "+exp=smoke", "data.max_words=30000", "tokenizer.vocab_size=600", "model.width=32", "model.heads=2", "model.ffn_width=48",
    "batches.seq_len=32", "steps=24", "trainer.save_every_steps=4", "trainer.eval_every_steps=8", "logger.wandb=disabled",
    "logger.every_steps=1", "trainer.precision=fp32",
]  # fmt: skip


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "foundation.pretrain", *TINY, f"runs_dir={folder}", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT
    )


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, *words)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def here(folder: Path, *words: str) -> None:
    """The same in this process: faster, for what needs no process of its own."""
    cfg = composed(*TINY, f"runs_dir={folder}", *words)
    cfg.check()
    pretrain(cfg, to_plain(cfg))


def losses(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Everything in metrics.jsonl that must not depend on how the run came about."""
    return [
        (line["step"], {key: value for key, value in line.items() if key.split("/")[0] in ("train", "eval", "optim")})
        for line in read_metrics(path / "metrics.jsonl")
    ]


def train_losses(run_folder: Path) -> list[float]:
    """Of every step, in nats; a step that was gone over again counts as it was last."""
    by_step = {
        row["step"]: row["train/loss"] for row in read_metrics(run_folder / "metrics.jsonl") if "train/loss" in row
    }
    return [by_step[step] for step in sorted(by_step)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one uninterrupted run, `smoke`, and its corpus."""
    folder = tmp_path_factory.mktemp("runs")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_run_folder_holds_all_that_is_promised(runs: Path) -> None:
    path = runs / "smoke"
    found = {str(entry.relative_to(path)) for entry in path.rglob("*")}
    promised = {
        "config.yaml", "run.json", "metrics.jsonl", "checkpoints/step-00000020", "checkpoints/step-00000024", "plots",
        "final/model.safetensors", "final/config.json", "final/tokenizer.json", "final/card.md",
    }  # fmt: skip
    assert promised <= found
    assert len(list((path / "plots").glob("*.png"))) >= 3
    record = json.loads((path / "run.json").read_text())
    assert {"corpus", "tokenizer", "foundation"} <= record["fingerprints"].keys()
    assert record["ledger"]["seconds"] > 0 and record["ledger"]["peak_memory_bytes"] > 1e7
    assert record["ledger"]["tokens"] == record["result"]["tokens"] > 0
    assert record["ledger"]["flops"] == pytest.approx(record["result"]["flops"])
    assert record["sessions"][0]["passes"] == {"fused": False, "why": "the fused ones are for bf16 on a CPU"}
    assert yaml.safe_load((path / "config.yaml").read_text())["model"]["width"] == 32
    card = (path / "final" / "card.md").read_text()
    assert record["fingerprints"]["foundation"] in card and record["fingerprints"]["corpus"] in card
    assert card.startswith("# smoke\n\nA Transformer encoder pretrained by Foundation from scratch.\n")
    n_parameters = sum(tensor.numel() for tensor in _saved(runs, "smoke").values())
    assert f"| parameters, heads included | {n_parameters:,} |" in card
    assert "| encoder | 2 layers of 32, 2 heads, geglu of 48, norms before the sub-layers, rotary positions |" in card
    assert "| objective | MLM, 0.15 of the tokens hidden, nsp × 1 |" in card
    assert " threads, fp32 |" in card


def test_metrics_have_the_promised_names(runs: Path) -> None:
    names = set().union(*read_metrics(runs / "smoke" / "metrics.jsonl"))
    assert {
        "step", "train/loss", "train/mlm_loss", "train/nsp_loss", "train/below_unigram", "eval/mlm_loss", "eval/mlm_accuracy",
        "eval/nsp_accuracy", "optim/lr", "optim/grad_norm", "speed/tokens_per_s", "speed/wait_share",
    } <= names  # fmt: skip


def test_loss_goes_down(runs: Path) -> None:
    found = [
        line["train/mlm_loss"] for line in read_metrics(runs / "smoke" / "metrics.jsonl") if "train/mlm_loss" in line
    ]
    assert sum(found[-5:]) < sum(found[:5]) - 0.3


def test_foundation_loads_and_its_hash_is_that_of_its_weights(runs: Path) -> None:
    from foundation.model.encoder import Encoder
    from foundation.train.checkpoint import weights_fingerprint

    loaded = load_foundation(runs / "smoke" / "final")
    encoder = Encoder(loaded.model)
    report = loaded.load_encoder(encoder)
    assert report.loaded == len(encoder.state_dict()) and not report.missing
    assert report.unexpected and all(name.startswith("heads.") for name in report.unexpected)
    shared = {name: tensor for name, tensor in loaded.tensors.items() if name.startswith("encoder.")}
    assert weights_fingerprint(shared) == loaded.fingerprint


def test_spoilt_tokens_are_logged_held_out_and_asked_again_of_the_saved_foundation(runs: Path) -> None:
    here(runs, "objective.detection.weight=5", "name=spoilt", "steps=8")
    rows = read_metrics(runs / "spoilt" / "metrics.jsonl")
    assert all(0 < row["train/detection_loss"] < 5 for row in rows[:7])
    assert all(0 < row["eval/detection_loss"] < 1 for row in rows if "eval/mlm_loss" in row)
    subject = load_subject(load_foundation(runs / "spoilt" / "final"), torch.device("cpu"), Precision.fp32)
    saved = _saved(runs, "spoilt")["heads.detection.classify.weight"]
    assert torch.equal(subject.objective.state_dict()["heads.detection.classify.weight"], saved)


def test_words_of_the_document_are_logged_held_out_and_asked_again_of_the_saved_foundation(runs: Path) -> None:
    here(runs, "objective=mlm_words", "name=words", "steps=8")
    rows = read_metrics(runs / "words" / "metrics.jsonl")
    assert all(row["train/loss"] == pytest.approx(row["train/mlm_loss"] + row["train/words_loss"]) for row in rows[:7])
    evaluated = [row["eval/words_loss"] for row in rows if "eval/words_loss" in row]
    assert evaluated and all(0 < loss < 7 for loss in evaluated)
    subject = load_subject(load_foundation(runs / "words" / "final"), torch.device("cpu"), Precision.fp32)
    assert torch.equal(subject.objective.state_dict()["heads.words.bias"], _saved(runs, "words")["heads.words.bias"])


def _saved(runs: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(runs / name / "final" / "model.safetensors")


def test_a_run_folder_is_never_overwritten(runs: Path) -> None:
    before = (runs / "smoke" / "run.json").read_bytes()
    done = run(runs)
    assert done.returncode == 1
    assert "choose another name=" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert (runs / "smoke" / "run.json").read_bytes() == before


def test_resuming_a_finished_run_says_so(runs: Path) -> None:
    done = run(runs, "resume=auto")
    assert done.returncode == 0 and "is finished" in done.stdout
    here(runs, "resume=true", "trainer.threads=2")
    with pytest.raises(
        UserError, match=r"is finished, under other settings than these:\n  seed: 0 → 7\nGive them their"
    ):
        here(runs, "resume=auto", "seed=7")


def steps_logged(path: Path) -> int:
    """The last step in metrics.jsonl, also while somebody writes it."""
    return max((line["step"] for line in read_metrics(path)), default=0) if path.exists() else 0


def test_killed_at_random_moments_and_resumed_it_ends_as_if_nothing_had_been(runs: Path) -> None:
    """SIGKILL, again and again; weights equal to the last bit, and the same losses in metrics.jsonl."""
    generator = random.Random(0)
    words, metrics = ["name=killed", "resume=auto"], runs / "killed" / "metrics.jsonl"
    # While it starts, and then anywhere between the checkpoints of every fourth step.
    for after_step in (0, 3, 9, 14, 21):
        process = start(runs, *words)
        while after_step and steps_logged(metrics) < after_step and process.poll() is None:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.03) if after_step else generator.uniform(0.5, 2))
        assert process.poll() is None, (
            f"ended before it could be killed after step {after_step}: {process.communicate()}"
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = run(runs, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((runs / "killed" / "run.json").read_text())
    assert [session["ended"] for session in record["sessions"]][-2:] == ["killed", "finished"]
    whole, killed = (load_file(runs / name / "final" / "model.safetensors") for name in ("smoke", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert losses(runs / "smoke") == losses(runs / "killed")


def test_average_ramp_and_z_loss_resume_to_the_last_bit_and_the_average_is_kept(runs: Path) -> None:
    words = [
        "name=ramped",
        "ema_decay=0.7",
        "batches.ramp_from=4",
        "batches.ramp_share=0.8",
        "objective.z_loss_weight=1e-3",
    ]
    here(runs, *words)
    path = runs / "ramped"
    whole, logged = _saved(runs, "ramped"), losses(path)
    by_step = {step: row for step, row in logged if "train/loss" in row}
    terms = ("train/mlm_loss", "train/nsp_loss", "train/z_loss")
    assert all(row["train/loss"] == pytest.approx(sum(row[term] for term in terms)) for row in by_step.values())
    tokens = [
        by_step[step]["train/tokens"] - (by_step[step - 1]["train/tokens"] if step > 1 else 0) for step in by_step
    ]
    assert tokens[0] < tokens[10] < tokens[-1]
    last = load_file(path / "checkpoints" / "step-00000024" / "model.safetensors")
    average = load_file(path / "checkpoints" / "step-00000024" / "optim.safetensors")
    name = "encoder.token_embedding.weight"
    assert torch.equal(whole[name], average[f"average/{name}"]) and not torch.equal(whole[name], last[name])

    # Take it back to step 20, as if it had been stopped there.
    for leftover in (path / "final", path / "checkpoints" / "step-00000024"):
        shutil.rmtree(leftover)
    here(runs, *words, "resume=true")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in _saved(runs, "ramped").items())
    assert losses(path) == logged


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_finishes_the_step_saves_and_says_how_to_go_on(runs: Path, number: signal.Signals) -> None:
    name = f"stopped{int(number)}"
    process = start(runs, f"name={name}", "steps=100000", "trainer.eval_every_steps=0", "trainer.save_every_steps=0")
    metrics = runs / name / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err  # so that what would fine-tune it does not begin
    assert "and saved; go on with:" in out and "resume=true" in out
    assert len(list((runs / name / "checkpoints").iterdir())) == 1


def test_resuming_with_another_micro_batch_and_number_of_processes_ends_the_same_to_1e_6(runs: Path) -> None:
    """In float64, since in float32 AdamW alone makes more of a rounding than that (it divides by small numbers)."""
    here(runs, "name=moved", "steps=24", "trainer.precision=fp64")
    moved = runs / "moved"
    whole, losses = load_file(moved / "final" / "model.safetensors"), train_losses(moved)
    # Take it back to step 20, as if it had been stopped there.
    for leftover in (moved / "final", moved / "checkpoints" / "step-00000024"):
        shutil.rmtree(leftover)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    words = [*TINY, f"runs_dir={runs}", "name=moved", "steps=24", "resume=true"]
    words += ["trainer.precision=fp64", "trainer.micro_batch_rows=3"]
    done = subprocess.run(
        [*launcher, "foundation.pretrain", *words],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=ROOT,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    other = load_file(moved / "final" / "model.safetensors")
    for name, tensor in whole.items():
        assert tensor.dtype is torch.float64
        torch.testing.assert_close(other[name], tensor, rtol=1e-6, atol=1e-9, msg=name)
    assert train_losses(moved) == pytest.approx(losses, rel=1e-6)
    sessions = json.loads((moved / "run.json").read_text())["sessions"]
    assert [session["ranks"] for session in sessions] == [1, 2]
    assert sessions[1]["command"][:3] == ["torchrun", "--nproc-per-node", "2"]


def test_resuming_under_a_changed_result_setting_is_refused_with_the_difference(runs: Path) -> None:
    here(runs, "name=changed", "steps=3")
    shutil.rmtree(runs / "changed" / "final")
    with pytest.raises(UserError, match=r"batches\.rows_per_step: 16 → 8"):
        here(runs, "name=changed", "steps=3", "resume=true", "batches.rows_per_step=8")
    with pytest.raises(UserError, match=r"trainer\.precision: fp32 → fp64"):
        here(runs, "name=changed", "steps=3", "resume=true", "trainer.precision=fp64")
    here(runs, "name=changed", "steps=3", "resume=true", "trainer.micro_batch_rows=4")
    assert (runs / "changed" / "final" / "card.md").is_file()


def test_a_run_begins_with_a_foundation_its_shape_and_its_tokenizer(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another shape, tokenizer and question are asked for: shape and tokenizer are the foundation's, heads where it has them."""
    words = ("model=bert_tiny", "tokenizer.vocab_size=700", "objective.detection.weight=1", "batches.seq_len=48")
    here(runs, "name=on", "init=smoke", *words, "steps=1", "optim.lr=1e-9", "trainer.eval_every_steps=0")
    parent, child = (load_foundation(runs / name / "final") for name in ("smoke", "on"))
    assert child.model == replace(parent.model, dropout=0.1, attention_dropout=0.1)  # as asked
    assert child.tokenizer.fingerprint == parent.tokenizer.fingerprint
    assert child.info["init"] == parent.fingerprint != child.fingerprint
    for name, tensor in parent.tensors.items():
        torch.testing.assert_close(child.tensors[name], tensor, rtol=0, atol=1e-6)
    said = capsys.readouterr().out
    assert f"it began with smoke ({parent.fingerprint}): 2 layers of 32, 600 entries" in said
    assert "heads drawn anew: detection" in said
    assert f"| began with | `{parent.fingerprint}` (smoke) |" in (runs / "on" / "final" / "card.md").read_text()
    (node,) = [node for node in trace(runs / "on" / "final").nodes.values() if node.name == "smoke"]
    assert (node.fingerprint, child.fingerprint) in trace(runs / "on" / "final").arrows


def test_a_run_begins_with_a_foundation_that_is_there(runs: Path) -> None:
    with pytest.raises(
        UserError, match=r"there is no foundation nowhere: .* with  init=NAME or FOLDER \(\S+ has .*smoke"
    ):
        here(runs, "name=off", "init=nowhere")


def test_budget_becomes_steps_once_and_is_recorded(runs: Path) -> None:
    here(runs, "name=budget", "steps=null", "budget=4s", "trainer.eval_every_steps=0")
    plan = json.loads((runs / "budget" / "run.json").read_text())["plan"]
    assert plan["total_steps"] >= 1
    assert plan["seconds_per_step"] > 0
    assert read_metrics(runs / "budget" / "metrics.jsonl")[-1]["step"] == plan["total_steps"]


def test_epochs_become_steps(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every token is seen twice, with [CLS] and [SEP] around rows that are short here."""
    here(runs, "name=twice", "steps=null", "epochs=2", "batches.rows_per_step=100", "trainer.eval_every_steps=0")
    seen = read_json(runs / "twice" / "run.json")["result"]["tokens"]
    tokens = read_json(next((runs / "corpora").glob("*/manifest.json")))["train"]["tokens"]
    assert 2 * tokens < seen < 2.4 * tokens
    assert re.search(r"of 100 rows \((1\.9\d|2|2\.0\d) epochs\)", capsys.readouterr().out)


def test_tokens_become_steps(runs: Path) -> None:
    here(runs, "name=tokens", "steps=null", "tokens=3000", "trainer.eval_every_steps=0")
    seen = json.loads((runs / "tokens" / "run.json").read_text())["result"]["tokens"]
    assert seen == pytest.approx(3000, rel=0.25)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=text", "data.files=[nowhere/*.txt]"], "nowhere"),
        (["data=text", "data.files=[{empty}]"], "empty"),
        (["data=text", "data.files=[{latin1}]"], r"latin1\.txt.*byte"),
        (["data=text", "data.files=[{binary}]"], r"binary\.txt.*byte"),
        (["tokenizer.vocab_size=50000"], "supports"),
        (["batches.rows_per_step=100000"], "fewer than one batch"),
        (["batches.ramp_from=2"], "at least 4 rows in every step"),
        (["batches.ramp_from=0"], "ramp_from=0 must be at least 1"),
        (["batches.ramp_share=2"], "ramp_share=2.* must be in"),
        (["ema_decay=1"], "ema_decay=1.* must be in"),
        (["objective.z_loss_weight=-1"], "must be at least 0"),
        (["batches.seq_len=4000"], "beyond the model's positions"),
        (["model.heads=5"], "does not divide"),
        (["trainer.device=cuda"], "use trainer.device=cpu"),
        (["trainer.device=tpu"], "must be auto, cpu or cuda"),
        (["trainer.compile=true"], "is for a GPU"),
        (["resume=true"], "resume"),
        (["budget=0.01s", "steps=null"], "leaves no time for a step"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(runs: Path, tmp_path: Path, words: list[str], message: str) -> None:
    if "trainer.device=cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    files = {"empty": b"", "latin1": "Les élèves été ".encode("latin-1") * 9, "binary": bytes(range(256)) * 9}
    for name, content in files.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    filled = [
        word.format(**{name: tmp_path / f"{name}.txt" for name in files}) if "{" in word else word for word in words
    ]
    with pytest.raises(UserError, match=message) as caught:
        here(runs, f"name={tmp_path.name}", *filled)
    assert "\n" not in str(caught.value)


def test_text_that_the_tokenizer_cannot_spell_is_said(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = [f"Line {number} of the text says 世界 and no more than that. It ends here." for number in range(200)]
    (tmp_path / "mixed.txt").write_text("\n\n".join(documents))
    tokenizer = next((runs / "corpora").glob("*/tokenizer.json"))
    here(tmp_path, "data=text", f"data.files=[{tmp_path / 'mixed.txt'}]", f"tokenizer.path={tokenizer}", "steps=1")
    assert re.search(r"warning: \d+\.\d% of the training tokens are \[UNK\]", capsys.readouterr().out)


def test_many_copies_among_the_documents_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = [f"Text {number} has a line. It ends here, and nothing comes behind it." for number in range(150)]
    (tmp_path / "twice.txt").write_text("\n\n".join([*documents, *documents[:50]]))
    words = "data=text", f"data.files=[{tmp_path / 'twice.txt'}]", "tokenizer.vocab_size=80"
    here(tmp_path, *words, "data.held_out=0.2", "steps=1")
    assert "warning: 50 of 200 documents are copies of earlier ones" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["batches.rows_per_step=4"], ["batches.rows_per_step=16", "batches.ramp_from=4"]])
def test_more_ranks_than_rows_in_a_step_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 8)
    with pytest.raises(UserError, match=r"8 ranks want a row each, .* has 4: start at most 4 .*or raise batches\."):
        here(tmp_path, *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_checkpoint_is_refused_by_name(runs: Path, damage: str) -> None:
    name = f"name={damage}"
    here(runs, name, "steps=8")
    shutil.rmtree(runs / damage / "final")
    weights = runs / damage / "checkpoints" / "step-00000008" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content if damage == "flipped" else weights.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"model.safetensors is damaged.*remove that folder to go on from step 4"):
        here(runs, name, "steps=8", "resume=true")


def test_offline_wandb_run_without_a_key_is_kept_and_says_how_to_send_it(runs: Path) -> None:
    environment = {key: value for key, value in ENVIRONMENT.items() if not key.startswith("WANDB")}
    environment["HOME"] = str(runs)
    words = [*TINY, f"runs_dir={runs}", "name=tracked", "steps=3", "logger.wandb=auto"]
    done = subprocess.run(
        [sys.executable, "-m", "foundation.pretrain", *words],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("wandb sync") == 1
    assert list((runs / "tracked" / "wandb").rglob("*.wandb"))


TOY = [
    "data=sample", "data.files=[]", "data.max_words=30000",
    "tokenizer=wordpiece_8k", "tokenizer.vocab_size=600", "model.width=32",
    "model.layers=2", "model.heads=2", "model.ffn_width=48", "batches.seq_len=32", "batches.rows_per_step=8", "steps=1",
    "tokens=null", "budget=null", "trainer.device=cpu", "trainer.eval_rows=16", "logger.wandb=disabled", "name=toy-{}",
]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_steps_once_at_toy_size(runs: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = composed(f"+exp={recipe}", *(word.format(recipe) for word in TOY), f"runs_dir={runs}")
    cfg.check()
    pretrain(cfg, to_plain(cfg))
    assert (runs / f"toy-{recipe}" / "final" / "card.md").is_file()
    assert "held-out MLM loss" in capsys.readouterr().out


@pytest.mark.parametrize("modifier", sorted(path.stem for path in (conf_folder() / "debug").glob("*.yaml")))
def test_every_debug_modifier_runs(runs: Path, modifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"overfit": ["steps=60", "optim.lr=1e-2"], "profile": [], "one_step": []}[modifier]
    words = [word for word in TOY if not word.startswith(("steps", "name", "tokens", "budget", "batches.rows"))]
    cfg = composed("+exp=smoke", f"+debug={modifier}", *words, *changes, f"runs_dir={runs}")
    if modifier == "one_step":
        pretrain(cfg, to_plain(cfg))  # a second time is no mistake
    pretrain(cfg, to_plain(cfg))
    path = runs / f"debug_{modifier}"
    if modifier == "profile":
        operators = (path / "profile" / "operators.txt").read_text()
        assert "aten::" in operators
        shares = dict(re.findall(r"^  (\S.*?) +[\d.,]+ ms +([\d.]+)%$", operators, re.MULTILINE))
        assert {"matrix products", "optimizer and clipping", "norms, activations, rotation", "loss"} < shares.keys()
        assert sum(map(float, shares.values())) == pytest.approx(100, abs=1)
        assert "a step takes" in capsys.readouterr().out
        assert (path / "profile" / "trace.json").stat().st_size > 1000
    if modifier == "overfit":
        found = [line["train/loss"] for line in read_metrics(path / "metrics.jsonl") if "train/loss" in line]
        assert found[-1] < 0.5 * found[0]
