"""The commands `foundation.export` and `foundation.import_hf`: their settings compose, and a mistake is one sentence."""

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

import foundation.export
import foundation.import_hf
from foundation.config import conf_folder, register, to_dataclass
from foundation.exchange.config import ExportConfig, ImportConfig


@pytest.mark.parametrize(
    ("schema", "name", "words", "default"),
    [
        (ExportConfig, "export", ["run=a", "to=b"], ("to_onnx", False)),
        (ImportConfig, "import_hf", ["folder=a", "name=b"], ("runs_dir", "runs")),
    ],
)
def test_the_shipped_settings_compose(schema: type, name: str, words: list[str], default: tuple[str, object]) -> None:
    register(schema, name)
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        cfg = to_dataclass(compose(name, words), schema)
    assert getattr(cfg, default[0]) == default[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "run=none", "to=out"], "error: there is neither a foundation nor a fine-tuned model in none"),
        (["export", "run=none"], "error: these settings need a value: to"),
        (["import_hf", "folder=none", "name=a"], "error: no folder at none: download one"),
        (["import_hf", "folder=none", "name=a/b"], "error: name=a/b is not a name for a run folder"),
        (["import_hf", "foldr=none", "name=a"], "error: unknown setting foldr; the nearest known one is folder"),
        (["import_hf", "from=none", "name=a"], "error: unknown setting from; --help lists those that there are"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"foundation.{words[0]}", *words[1:]])
    with pytest.raises(SystemExit, match=f"^{message}") as caught:
        {"export": foundation.export, "import_hf": foundation.import_hf}[words[0]].main()
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())
