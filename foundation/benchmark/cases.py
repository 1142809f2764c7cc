"""From settings to cases: which contenders do which work, and what an amount of it means."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from foundation.benchmark.checkpointing import OurCheckpoint, PeerCheckpoint
from foundation.benchmark.config import BenchConfig, CheckpointCase, FinetuningCase, PeerConfig, PretrainingCase
from foundation.benchmark.contender import Contender, Setup
from foundation.benchmark.ours import OurFinetuning, OurPretraining
from foundation.benchmark.peer import PeerFinetuning, PeerPretraining
from foundation.benchmark.preparation import LibraryEncoding, OurPreparation, PeerPreparation, source_file
from foundation.benchmark.products import Products
from foundation.benchmark.startup import Command, PeerImports
from foundation.benchmark.text import filling, flops_of, open_corpus, pretraining_examples
from foundation.train.config import Precision

PRODUCT_NAMES = {precision.value: f"{precision.value} products" for precision in (Precision.fp32, Precision.bf16)}


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders for the same work. The first is the one whose ratios are told.

    unit: of an amount; "s" where a piece of work is one run and seconds are told instead of a rate. notes: printed with it.
    flops_per_unit: useful operations, None where products are not the work.
    """

    name: str
    unit: str
    contenders: list[Contender]
    notes: list[str] = field(default_factory=list)
    flops_per_unit: float | None = None


def build_cases(cfg: BenchConfig, setup: Setup) -> Iterator[Case]:
    """The chosen ones, each with its text made ready; lazily, so that the first can be measured before the last is prepared."""
    wanted = [name for name in cfg.case_names() if cfg.only is None or cfg.only in name]
    for startup in cfg.bench.startup:
        if startup.name in wanted:
            if startup.until_step:
                # The corpus of exp=small: it is prepared beforehand, as a second run of a user finds it.
                open_corpus(cfg.data, 8192, setup.runs_dir)
            contenders: list[Contender] = [Command(name="ours", is_ours=True, case=startup)]
            if cfg.peers and startup.against_imports:
                contenders.append(PeerImports(name="imports of run_mlm.py", is_default=True))
            yield Case(startup.name, "s", contenders)
    for preparation in cfg.bench.preparation:
        if preparation.name in wanted:
            open_corpus(cfg.data, preparation.vocab_size, setup.runs_dir)
            source_file(preparation, cfg.data, setup.runs_dir)
            contenders = [
                OurPreparation(name="ours, whole", is_ours=True, case=preparation, data=cfg.data),
                LibraryEncoding(name="encode_batch_fast alone", is_ours=True, case=preparation, data=cfg.data),
            ]
            if cfg.peers:
                peer = PeerPreparation(name="datasets map", is_default=True, case=preparation, data=cfg.data)
                contenders.append(peer)
            yield Case(preparation.name, "words", contenders)
    for checkpoint in cfg.bench.checkpoint:
        if checkpoint.name in wanted:
            yield from (_checkpoint(checkpoint, saves, with_peer=cfg.peers) for saves in (True, False))
    for pretraining in cfg.bench.pretraining:
        if pretraining.name in wanted:
            yield from _pretraining(pretraining, cfg, setup)
    yield from (_finetuning(case, cfg, setup) for case in cfg.bench.finetuning if case.name in wanted)


def _checkpoint(case: CheckpointCase, saves: bool, with_peer: bool) -> Case:
    contenders: list[Contender] = [OurCheckpoint(name="ours", is_ours=True, case=case, saves=saves)]
    if saves:
        contenders.append(OurCheckpoint(name="ours, to disk", is_ours=True, case=case, saves=True, to_disk=True))
    if with_peer:
        contenders.append(PeerCheckpoint(name="transformers", is_default=True, case=case, saves=saves))
    notes = [] if saves else ["ours into a model and an optimizer that are there; from_pretrained makes its own"]
    return Case(f"{case.name} {'save' if saves else 'load'}", "s", contenders, notes)


def _pretraining(case: PretrainingCase, cfg: BenchConfig, setup: Setup) -> Iterator[Case]:
    """One case, or one for each way of using the peer."""
    peers = cfg.bench.pretraining_peers if cfg.peers else []
    if not (case.apart and peers):
        yield _pretraining_beside(peers, case, cfg, setup)
        return
    for peer in peers:
        beside = _pretraining_beside([peer], case, cfg, setup)
        yield replace(beside, name=f"{case.name} beside {peer.name}")


def _pretraining_beside(peers: list[PeerConfig], case: PretrainingCase, cfg: BenchConfig, setup: Setup) -> Case:
    # By its data sheet a GPU's float32 has less than a tenth of its bfloat16's rate; and where memory is short, one less helps.
    kinds = [Precision.bf16] if setup.device == "cuda" or case.apart else [Precision.bf16, Precision.fp32]
    ways = [(kind, False) for kind in kinds] + [(Precision.bf16, True)]
    examples = pretraining_examples(case, open_corpus(cfg.data, case.size.vocab_size, setup.runs_dir))
    filled = filling(examples, case.seq_len)
    contenders: list[Contender] = [
        OurPretraining(
            name=f"ours {precision.value}{' modern' * is_modern}",
            is_ours=True,
            product=precision.value,
            case=case,
            data=cfg.data,
            precision=precision,
            is_modern=is_modern,
        )
        for precision, is_modern in ways
    ]
    contenders += [PeerPretraining(**_as_peer(peer), case=case, data=cfg.data, peer=peer) for peer in peers]
    notes = [
        f"{case.rows} rows of up to {case.seq_len} tokens; {filled.real_share:.1%} of the peer's cells are tokens, and "
        f"{filled.targets_share:.1%} of the tokens are asked",
    ]
    return Case(case.name, "tokens", [*contenders, *_products(kinds)], notes, flops_of(case.size, filled, case.seq_len))


def _finetuning(case: FinetuningCase, cfg: BenchConfig, setup: Setup) -> Case:
    open_corpus(cfg.data, case.size.vocab_size, setup.runs_dir)
    contenders: list[Contender] = [
        OurFinetuning(
            name=f"ours {precision.value}",
            is_ours=True,
            product=precision.value,
            case=case,
            data=cfg.data,
            precision=precision,
        )
        for precision in (Precision.bf16, Precision.fp32)
    ]
    if cfg.peers:
        contenders += [
            PeerFinetuning(**_as_peer(peer), case=case, data=cfg.data, peer=peer) for peer in cfg.bench.finetuning_peers
        ]
    notes = [
        f"an epoch over {case.texts:,} texts, median {case.median_words:g} words, in steps of {case.rows} unless told; "
        f"times {case.epoch_rows / case.texts:.1f} is an epoch of {case.epoch_rows:,}"
    ]
    return Case(case.name, "tokens", contenders, notes)


def _as_peer(peer: PeerConfig) -> dict[str, Any]:
    """How a peer's contender is shown."""
    shown = {"is_default": peer.is_default, "is_changed": peer.gathers, "product": peer.precision.value}
    return {"name": f"transformers {peer.name}", **shown}


def _products(kinds: list[Precision]) -> list[Contender]:
    """The precisions' rates, measured in the same rounds as the steps that are held against them."""
    return [Products(name=PRODUCT_NAMES[kind.value], is_ours=True, precision=kind) for kind in kinds]
