"""The bench from end to end, its report, and its settings."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from foundation.benchmark.cases import Case
from foundation.benchmark.config import BenchConfig, CasesConfig, PeerConfig, StartupCase
from foundation.benchmark.contender import Contender, Done, Setup, Turn, Work
from foundation.benchmark.report import lines_of, summary, table
from foundation.benchmark.session import bench
from foundation.config import conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.core.files import read_json
from foundation.core.plain import to_plain
from foundation.data.config import DataConfig
from foundation.train.config import TrainerConfig

SETS = sorted(path.stem for path in (conf_folder() / "bench").glob("*.yaml"))


def settings(runs_dir: Path, *names: str, **changed: Any) -> BenchConfig:
    cases = CasesConfig(startup=[StartupCase(name=name, command=["-c", "pass"]) for name in names])
    defaults = {"name": "b", "runs_dir": str(runs_dir), "rounds": 2, "round_seconds": 0.01, "peers": False}
    data, trainer = DataConfig(embedded=["chitchat"]), TrainerConfig(device="cpu")
    return BenchConfig(**{**defaults, "bench": cases, "data": data, "trainer": trainer, **changed})


def test_what_is_measured_is_printed_and_kept_beside_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = settings(tmp_path, "one", "two", only="one")
    bench(first, to_plain(first))
    second = settings(tmp_path, "one", "two", only="two")
    bench(second, to_plain(second))
    kept = read_json(tmp_path / "bench/b/bench.json")
    assert kept["cases"].keys() == {"one", "two"}
    one = kept["cases"]["one"]
    assert len(one["contenders"]["ours"]["turns"]) == 2
    assert one["machine"]["cpu_count"] and one["versions"]["torch"] and one["load_before"] >= 0
    printed = capsys.readouterr().out
    assert "two" in printed and "seconds" in printed and "6 × weights touched" in printed


class Played:
    """A contender whose turns are known."""

    def __init__(self, name: str, rates: list[float], failure: str = "", **kind: Any) -> None:
        self.contender = Named(name=name, **kind)
        self.turns = [Turn(rate, 1.0, 10**9) for rate in rates]
        self.failure, self.threads, self.warm_up_seconds = failure, 2, 0.5


class Named(Contender):
    def build(self, setup: Setup) -> Work:
        return lambda: Done(1)


def played() -> tuple[Case, list[Any]]:
    players = [
        Played("ours", [100.0, 50.0, 120.0], is_ours=True, product="bf16"),
        Played("default", [20.0, 25.0, 20.0], is_default=True, product="fp32"),
        Played("better", [40.0, 25.0, 60.0], product="bf16"),
        Played("compiled", [], failure="RuntimeError: no compiler"),
        Played("fp32 products", [1000.0] * 3, is_ours=True),
        Played("bf16 products", [4000.0] * 3, is_ours=True),
    ]
    return Case("case", "tokens", [p.contender for p in players], ["a note"], flops_per_unit=10.0), players


def test_a_peer_that_fails_in_a_later_round_is_told_as_that_and_compared_with_nobody() -> None:
    case, players = played()
    players.insert(2, Played("killed", [99.0], failure="memory ran out"))
    found = summary(case, players)
    assert found["best_peer"] == "better"
    killed = found["contenders"]["killed"]
    assert killed["failure"] == "memory ran out" and len(killed["turns"]) == 1 and "rate" not in killed
    assert "could not run: memory ran out" in table("case", found)


def test_ratios_are_of_the_same_round() -> None:
    lines = {line.name: line for line in lines_of(*played())}
    assert lines["default"].ratio == 5.0  # the median of 5, 2 and 6
    assert lines["better"].ratio == 2.0
    assert (lines["ours"].rate, lines["ours"].low, lines["ours"].high) == (100, 50, 120)


def test_the_peak_is_that_of_the_turn_that_took_most() -> None:
    case, players = played()
    players[0].turns = [Turn(1.0, 1.0, peak) for peak in (1, 3, 2)]
    assert lines_of(case, players)[0].peak_bytes == 3


def test_shares_are_of_the_product_rate_in_the_contenders_own_precision() -> None:
    lines = {line.name: line for line in lines_of(*played())}
    assert lines["ours"].product_share == pytest.approx(100 * 10 / 4000)
    assert lines["default"].product_share == pytest.approx(20 * 10 / 1000)
    assert lines["fp32 products"].product_share is None


def test_the_best_peer_is_the_one_compared_with_and_failures_are_told() -> None:
    found = summary(*played())
    assert (found["best_peer"], found["times_best_peer"], found["times_default_peer"]) == ("better", 2.0, 5.0)
    text = table("case", found)
    assert "ours is 2.00× the peer's best (better), 5.00× its default" in text
    assert "could not run: RuntimeError: no compiler" in text
    assert "a note" in text and "its code changed" not in text


def test_the_best_peer_is_the_one_whose_ratio_is_the_lowest() -> None:
    case, players = played()
    players[2:3] = [Played("lucky", [40.0, 26.0, 41.0]), Played("steady", [39.0, 30.0, 50.0])]
    lines = {line.name: line for line in lines_of(case, players)}
    assert lines["lucky"].rate > lines["steady"].rate
    assert (lines["lucky"].ratio, lines["steady"].ratio) == (2.5, 2.4)
    assert summary(case, players)["best_peer"] == "steady"


def test_a_peer_whose_code_was_changed_is_told_apart_from_its_best_setting() -> None:
    case, players = played()
    players += [Played("gathers", [80.0, 40.0, 96.0], is_changed=True), Played("slow", [1.0] * 3, is_changed=True)]
    found = summary(case, players)
    assert (found["best_peer"], found["times_best_peer"], found["times_default_peer"]) == ("better", 2.0, 5.0)
    assert (found["best_changed_peer"], found["times_best_changed_peer"]) == ("gathers", 1.25)
    assert "1.25× its code changed (gathers)" in table("case", found)


def test_seconds_are_told_where_a_piece_of_work_is_one_run() -> None:
    case, players = played()
    text = table("case", summary(Case("case", "s", case.contenders), players[:2]))
    assert "0.01 " in text and "[0.01, 0.02]" in text


@pytest.mark.parametrize("choice", SETS)
def test_every_set_composes(choice: str) -> None:
    register(BenchConfig, "bench")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose("bench", [f"bench={choice}"]), BenchConfig)
    cfg.check()
    assert any(peer.is_default for peer in cfg.bench.pretraining_peers)
    for case in cfg.bench.pretraining:
        assert case.size.width % case.size.heads == 0


def test_the_full_set_has_every_size_length_and_vocabulary() -> None:
    register(BenchConfig, "bench")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cases = to_dataclass(compose("bench", ["bench=full"]), BenchConfig).bench
    assert {peer.gathers for peer in cases.pretraining_peers} == {True, False}
    kinds = {(case.size.layers, case.size.width, case.seq_len, case.size.vocab_size) for case in cases.pretraining}
    assert len(kinds) == 4 * 2 * 2
    assert {peer.compiled for peer in cases.pretraining_peers} == {True, False}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"only": "three"}, "only=three is in no case's name: there are one, two"),
        ({"rounds": 0}, "rounds=0 must be positive"),
        ({"name": "a/b"}, "name=a/b must be the name of a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings(tmp_path, "one", "two", **changed).check()


def test_a_peer_gathers_in_pretraining_only(tmp_path: Path) -> None:
    peers = [PeerConfig(name="p", gathers=True)]
    settings(tmp_path, bench=CasesConfig(pretraining_peers=peers)).check()
    with pytest.raises(UserError, match="p: gathers=true is of pretraining"):
        settings(tmp_path, bench=CasesConfig(finetuning_peers=peers)).check()


def test_two_cases_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two cases have the same name"):
        settings(tmp_path, "one", "one").check()
