"""Every contender works on the same thing: the same tokens, the same targets; checked in this process, at toy size."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundation.benchmark import ours
from foundation.benchmark.cases import build_cases
from foundation.benchmark.checkpointing import OurCheckpoint, PeerCheckpoint
from foundation.benchmark.config import (
    BenchConfig,
    CasesConfig,
    CheckpointCase,
    FinetuningCase,
    Padding,
    PeerConfig,
    PreparationCase,
    PretrainingCase,
    SizeConfig,
    StartupCase,
)
from foundation.benchmark.contender import Setup
from foundation.benchmark.ours import OurFinetuning, OurPretraining
from foundation.benchmark.peer import (
    GatheringBert,
    PaddedStep,
    PeerFinetuning,
    PeerPretraining,
    _loop,
    bert_settings,
    gathered,
    padded_steps,
)
from foundation.benchmark.preparation import LibraryEncoding, OurPreparation, PeerPreparation, source_file
from foundation.benchmark.products import Products
from foundation.benchmark.startup import Command
from foundation.benchmark.text import bert_shape, filling, flops_of, open_corpus, pretraining_examples
from foundation.core.errors import UserError
from foundation.data.batches import NO_PAIR
from foundation.data.config import DataConfig
from foundation.model.encoder import Encoder, parameter_count
from foundation.objective.base import Example
from foundation.train import checkpoint
from foundation.train.config import DeviceConfig, Precision
from foundation.train.loop import TrainState
from tests.evaluation.toy import text

VOCAB = 80
SIZE = SizeConfig(layers=2, width=32, heads=2, vocab_size=VOCAB)
STEP = PretrainingCase(name="step", size=SIZE, seq_len=48, rows=8)
EPOCH = FinetuningCase(
    name="epoch", size=SIZE, seq_len=48, rows=8, texts=30, median_words=6, spread=0.7, epoch_rows=1000
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    letters = " ".join("abcdefghijklmnopqrstuvwxyz")
    path.write_text(f"{letters}\n\n{text(80)}")
    return DataConfig(files=[str(path)], held_out=0.1)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory, data: DataConfig) -> Setup:
    folder = tmp_path_factory.mktemp("runs")
    open_corpus(data, VOCAB, str(folder))  # made once for all tests
    return Setup(runs_dir=str(folder), device="cpu", threads=1, round_seconds=0.1)


def test_the_peer_gets_the_same_tokens_pairs_and_targets_in_rectangles(data: DataConfig, setup: Setup) -> None:
    example = pretraining_examples(STEP, open_corpus(data, VOCAB, setup.runs_dir))[0]
    for rows in (0, 3):
        steps = list(padded_steps(example, rows, STEP.seq_len))
        assert sum(step.n_tokens for step in steps) == example.n_tokens
        cells = [step.inputs["input_ids"][step.inputs["attention_mask"] == 1] for step in steps]
        assert torch.equal(torch.cat(cells), example.ids)
        kinds = [step.inputs["token_type_ids"][step.inputs["attention_mask"] == 1] for step in steps]
        assert torch.equal(torch.cat(kinds), example.segments)
        asked = torch.cat([step.inputs["labels"][step.inputs["labels"] != -100] for step in steps])
        assert torch.equal(asked, example.targets)
        pairs = torch.cat([step.inputs["next_sentence_label"] for step in steps])
        assert example.labels is not None
        assert torch.equal(pairs, example.labels.masked_fill(example.labels == NO_PAIR, -100))
        assert {step.inputs["input_ids"].shape[1] for step in steps} == {STEP.seq_len}


def test_both_sides_shapes_have_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")

    theirs = transformers.BertModel(bert_settings(SIZE, 48), add_pooling_layer=False)
    assert parameter_count(theirs) == parameter_count(Encoder(bert_shape(SIZE, 48)))


def test_both_sides_drop_out_as_much() -> None:
    pytest.importorskip("transformers")

    theirs, shape = bert_settings(SIZE, 48), bert_shape(SIZE, 48)
    assert (shape.dropout, shape.attention_dropout) == (0.1, 0.1)
    assert (theirs.hidden_dropout_prob, theirs.attention_probs_dropout_prob) == (0.1, 0.1)


def test_a_token_attends_to_its_own_row() -> None:
    ids = torch.zeros(8, dtype=torch.int64)
    filled = filling([Example(ids, ids, (2, 6), ids[:1], ids[:1], None)], 10)
    assert filled.attended_tokens == (2 * 2 + 6 * 6) / 8
    assert (filled.real_share, filled.targets_share, filled.read_share) == (4 / 10, 1 / 8, 3 / 8)


def test_a_tokens_operations_are_six_times_the_weights_it_touches(data: DataConfig, setup: Setup) -> None:
    filled = filling(pretraining_examples(STEP, open_corpus(data, VOCAB, setup.runs_dir)), STEP.seq_len)
    assert 0.5 < filled.real_share <= 1
    assert filled.targets_share == pytest.approx(0.15, abs=0.03)
    layer = 4 * 32 * 32 + 2 * 32 * 128
    # What the last layer does behind its attention is needed of the asked and the first tokens.
    unread = 1 - filled.read_share
    assert filled.read_share == pytest.approx(0.15 + 1 / 40, abs=0.04)
    touched = 2 * layer - unread * (32 * 32 + 2 * 32 * 128) + filled.targets_share * (32 * 32 + 32 * VOCAB)
    attention = 12 * round(filled.attended_tokens) * 32 * 2
    assert flops_of(SIZE, filled, STEP.seq_len) == pytest.approx(6 * touched + attention)


def test_all_pretraining_contenders_go_round_the_same_tokens(data: DataConfig, setup: Setup) -> None:
    pytest.importorskip("transformers")
    examples = pretraining_examples(STEP, open_corpus(data, VOCAB, setup.runs_dir))
    shared = {"case": STEP, "data": data}
    contenders = [
        OurPretraining(name="a", precision=Precision.bf16, **shared),
        OurPretraining(name="b", precision=Precision.fp32, is_modern=True, **shared),
        PeerPretraining(name="c", peer=PeerConfig(name="c", precision=Precision.bf16), **shared),
        PeerPretraining(name="d", peer=PeerConfig(name="d", rows=2), **shared),
        PeerPretraining(name="e", peer=PeerConfig(name="e", rows=2, gathers=True), **shared),
    ]
    for contender in contenders:
        work = contender.build(setup)
        assert sum(work().amount for _ in examples) == sum(example.n_tokens for example in examples)


def test_a_peer_that_gathers_has_the_loss_and_gradients_of_its_class(data: DataConfig, setup: Setup) -> None:
    transformers = pytest.importorskip("transformers")
    examples = pretraining_examples(STEP, open_corpus(data, VOCAB, setup.runs_dir))
    plain = [step for example in examples for step in padded_steps(example, 3, STEP.seq_len)]
    steps = gathered(plain)
    assert len({step.inputs["labels"].shape for step in steps}) == 1
    assert [step.n_tokens for step in steps] == [step.n_tokens for step in plain]
    torch.manual_seed(0)
    model = transformers.BertForPreTraining(bert_settings(SIZE, STEP.seq_len)).double().eval()
    for whole, few in zip(plain, steps, strict=True):
        found = []
        for forward, step in ((model, whole), (GatheringBert(model), few)):
            model.zero_grad()
            loss = forward(**step.inputs).loss
            loss.backward()
            found.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
        assert len(found[0]) == len(found[1]) == len(list(model.parameters())) + 1
        for theirs, ours_ in zip(*found, strict=True):
            torch.testing.assert_close(ours_, theirs, rtol=0, atol=1e-12)


def test_a_peer_gathers_where_it_is_told_to(data: DataConfig, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    from foundation.benchmark import peer

    made: list[tuple[str, int]] = []
    monkeypatch.setattr(
        peer,
        "_loop",
        lambda model, steps, *_, **__: made.append((type(model).__name__, steps[0].inputs["labels"].ndim)),
    )
    for gathers in (False, True):
        PeerPretraining(name="a", case=STEP, data=data, peer=PeerConfig(name="p", gathers=gathers)).build(setup)
    assert made == [("BertForPreTraining", 2), ("GatheringBert", 1)]


def test_a_peer_that_gathers_is_not_told_as_a_setting_of_its_own(data: DataConfig, setup: Setup) -> None:
    peers = [PeerConfig(name="x"), PeerConfig(name="y", gathers=True)]
    asked = CasesConfig(pretraining=[STEP], pretraining_peers=peers)
    cfg = BenchConfig(name="b", runs_dir=setup.runs_dir, bench=asked, data=data, trainer=DeviceConfig())
    (case,) = build_cases(cfg, setup)
    assert [c.name for c in case.contenders if c.is_changed] == ["transformers y"]


@pytest.mark.parametrize(("kind", "case"), [(OurPretraining, STEP), (OurFinetuning, EPOCH)])
def test_our_steps_are_those_of_training(
    data: DataConfig, setup: Setup, kind: Any, case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[TrainState] = []
    begin = ours._state

    def kept(*args: Any, **settings: Any) -> TrainState:
        made.append(begin(*args, **settings))
        return made[0]

    monkeypatch.setattr(ours, "_state", kept)
    work = kind(name="a", case=case, data=data, precision=Precision.fp32).build(setup)
    objective = made[0].objective
    before = [weight.clone() for weight in objective.encoder.parameters()]
    for _ in range(2):
        work()
    # At the rate itself: a warm-up over steps that no bench takes would change next to nothing.
    moved = [(old - new).abs().max() for old, new in zip(before, objective.encoder.parameters(), strict=True)]
    assert max(moved) > 5e-5
    assert all(module.training for module in objective.modules())


class Told(nn.Module):
    """A model of the peer's kind that keeps what it computes in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 4), []

    def forward(self, x: Tensor) -> Any:
        out = self.layer(x)
        self.seen.append((out.dtype, self.training))
        return SimpleNamespace(loss=out.float().mean())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_peer_trains_in_the_precision_it_is_told(setup: Setup, precision: str, dtype: torch.dtype) -> None:
    model, peer = Told(), PeerConfig(name="p", precision=Precision(precision))
    before = model.layer.weight.clone()
    assert _loop(model, [PaddedStep({"x": torch.ones(2, 4)}, 7)], setup, peer, pieces=2)().amount == 14
    assert model.seen == [(dtype, True)] * 2
    assert not torch.equal(model.layer.weight, before)


def test_the_peer_is_compiled_where_it_is_told_to(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling itself takes too long for a test."""
    asked: list[str] = []

    def compiled(model: nn.Module) -> Any:
        return lambda **inputs: asked.append(name) or model(**inputs)

    monkeypatch.setattr(torch, "compile", compiled)
    for name in ("eager", "compiled"):
        peer = PeerConfig(name=name, compiled=name == "compiled")
        _loop(Told(), [PaddedStep({"x": torch.ones(2, 4)}, 7)], setup, peer, pieces=2)()
    assert asked == ["compiled"] * 2


@pytest.mark.parametrize("apart", [False, True])
def test_a_case_that_would_not_fit_into_memory_has_one_peer_at_a_time(
    data: DataConfig, setup: Setup, apart: bool
) -> None:
    peers = [PeerConfig(name="x", is_default=True), PeerConfig(name="y", precision=Precision.bf16)]
    asked = CasesConfig(pretraining=[replace(STEP, apart=apart)], pretraining_peers=peers)
    cfg = BenchConfig(name="b", runs_dir=setup.runs_dir, bench=asked, data=data, trainer=DeviceConfig())
    cases = list(build_cases(cfg, setup))
    beside = [[c.name for c in case.contenders if not c.is_ours] for case in cases]
    if apart:
        assert [case.name for case in cases] == ["step beside x", "step beside y"]
        assert beside == [["transformers x"], ["transformers y"]]
    else:
        assert [case.name for case in cases] == ["step"] and beside == [["transformers x", "transformers y"]]
    assert all(case.contenders[0].name == "ours bf16" for case in cases)
    (alone,) = build_cases(replace(cfg, peers=False), setup)
    assert alone.name == "step" and all(c.is_ours for c in alone.contenders)


def test_of_checkpoints_only_what_is_the_peers_counts_as_the_peer(data: DataConfig, setup: Setup) -> None:
    asked = CasesConfig(checkpoint=[CheckpointCase(name="c", size=SIZE)])
    cfg = BenchConfig(name="b", runs_dir=setup.runs_dir, bench=asked, data=data, trainer=DeviceConfig())
    cases = list(build_cases(cfg, setup))
    assert [case.name for case in cases] == ["c save", "c load"]
    assert [[c.name for c in case.contenders if not c.is_ours] for case in cases] == [["transformers"]] * 2


def test_all_fine_tuning_contenders_have_the_same_epoch(data: DataConfig, setup: Setup) -> None:
    pytest.importorskip("transformers")
    peers = [PeerConfig(name=padding.value, padding=padding, rows=4) for padding in Padding]
    amounts = {OurFinetuning(name="a", case=EPOCH, data=data, precision=Precision.fp32).build(setup)().amount}
    amounts |= {PeerFinetuning(name="b", case=EPOCH, data=data, peer=peer).build(setup)().amount for peer in peers}
    assert len(amounts) == 1
    assert amounts.pop() > EPOCH.texts * 3


def test_the_peers_batches_are_as_wide_as_its_padding_says(
    data: DataConfig, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from foundation.benchmark import peer

    masks: list[Tensor] = []
    monkeypatch.setattr(
        peer, "_loop", lambda _, steps, *__, **___: masks.extend(s.inputs["attention_mask"] for s in steps)
    )
    widths: dict[Padding, list[int]] = {}
    for padding in Padding:
        how = PeerConfig(name="p", padding=padding, rows=4)
        PeerFinetuning(name="b", case=EPOCH, data=data, peer=how).build(setup)
        longest = [int(mask.sum(dim=1).max()) for mask in masks]
        widths[padding] = [mask.shape[1] for mask in masks]
        assert widths[padding] == ([EPOCH.seq_len] * 8 if padding is Padding.maximum else longest)
        masks.clear()
    assert widths[Padding.grouped] == sorted(widths[Padding.grouped])
    assert sum(widths[Padding.grouped]) < sum(widths[Padding.batch]) < sum(widths[Padding.maximum])


def test_the_peer_keeps_freed_memory_where_it_is_told_to(
    data: DataConfig, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from foundation.benchmark import peer

    asked: list[str] = []
    for keeps in (False, True):
        how = PeerConfig(name=str(keeps), keeps_memory=keeps)
        for kind, case in ((PeerPretraining, STEP), (PeerFinetuning, EPOCH)):
            monkeypatch.setattr(peer, "keep_freed_memory", lambda made=f"{kind.__name__} {keeps}": asked.append(made))
            kind(name="a", case=case, data=data, peer=how).build(setup)
    assert asked == ["PeerPretraining True", "PeerFinetuning True"]


def test_preparation_is_of_the_same_words(data: DataConfig, setup: Setup) -> None:
    case = PreparationCase(name="prepare", words=5000, vocab_size=VOCAB)
    n_words = len(source_file(case, data, setup.runs_dir).read_text().split())
    assert 5000 <= n_words < 5300
    for kind in (OurPreparation, LibraryEncoding):
        assert kind(name="a", case=case, data=data).build(setup)().amount == n_words


def test_the_peer_prepares_the_same_words(data: DataConfig, setup: Setup) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("datasets")
    case = PreparationCase(name="prepare", words=2000, vocab_size=VOCAB)
    n_words = len(source_file(case, data, setup.runs_dir).read_text().split())
    assert PeerPreparation(name="a", case=case, data=data).build(setup)().amount == n_words


@pytest.mark.parametrize("saves", [True, False])
def test_checkpoints_are_timed_one_way_at_a_time(setup: Setup, saves: bool) -> None:
    pytest.importorskip("transformers")
    case = CheckpointCase(name="c", size=SIZE)
    for kind in (OurCheckpoint, PeerCheckpoint):
        work = kind(name="a", case=case, saves=saves).build(setup)
        seconds = [work().seconds for _ in range(2)]
        assert all(value is not None and 0 < value < 20 for value in seconds)


def test_of_a_save_is_timed_what_training_waits_for_or_until_it_is_on_the_disk(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = checkpoint.save_tensors

    def slowly(*args: Any) -> None:
        time.sleep(0.2)
        writes(*args)

    monkeypatch.setattr(checkpoint, "save_tensors", slowly)
    case = CheckpointCase(name="c", size=SIZE)
    waits, to_disk = (
        OurCheckpoint(name="a", case=case, saves=True, to_disk=to_disk).build(setup)().seconds
        for to_disk in (False, True)
    )
    assert waits is not None and waits < 0.2
    assert to_disk is not None and to_disk >= 0.4, "weights and optimizer are two files"


def test_every_checkpoint_is_written_anew(setup: Setup) -> None:
    work = OurCheckpoint(name="a", case=CheckpointCase(name="c", size=SIZE), saves=True).build(setup)
    found = set()
    for _ in range(3):
        work()
        found |= {path.name for path in (Path(setup.runs_dir) / "bench/checkpoints").glob("*/step-*")}
    assert len(found) == 3


def test_products_count_two_operations_a_cell(setup: Setup) -> None:
    assert Products(name="p", precision=Precision.fp32).build(setup)().amount == 2 * 2048**3


def test_a_command_is_timed_to_its_end_or_to_its_first_step(setup: Setup) -> None:
    code = (
        "import sys, time, pathlib; p = pathlib.Path(sys.argv[1]) / sys.argv[2]; p.mkdir(); time.sleep(0.05); "
        "(p / 'metrics.jsonl').write_text('x'); time.sleep(0.6)"
    )
    case = StartupCase(name="s", command=["-c", code, "{runs_dir}", "{name}"])
    whole = Command(name="a", case=case).build(setup)().seconds
    first = Command(name="a", case=replace(case, until_step=True)).build(setup)().seconds
    assert whole is not None and first is not None
    assert first < whole
    assert not list(Path(setup.runs_dir).glob("bench-startup-*"))


def test_a_command_that_breaks_is_no_measurement(setup: Setup) -> None:
    for status in (1, 7):
        case = StartupCase(name="s", command=["-c", f"import sys; sys.exit({status})"])
        with pytest.raises(UserError, match=f"ended with status {status}"):
            Command(name="a", case=case).build(setup)()
        assert Command(name="a", case=replace(case, status=status)).build(setup)().seconds


def test_the_memory_of_a_command_is_its_own(setup: Setup) -> None:
    code = "block = bytearray(300_000_000)"
    peak = Command(name="a", case=StartupCase(name="s", command=["-c", code])).build(setup)().peak_bytes
    assert peak is not None and peak > 300_000_000
