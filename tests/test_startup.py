"""--help and a mistake are answered before anything heavy is imported: the words of a command line need no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ENTRY_POINTS = sorted(path.stem for path in (ROOT / "foundation").glob("*.py") if "def main()" in path.read_text())
# Each costs a tenth of a second at least, torch and datasets some seconds.
HEAVY = {
    "torch", "numpy", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib", "datasets", "tokenizers", "transformers", "wandb",
    "safetensors", "fastapi", "uvicorn", "onnx", "onnxruntime",
}  # fmt: skip
_SHOW = "import sys\ntry:\n    {action}\nexcept SystemExit:\n    pass\nprint('MODULES', *sys.modules)"


def modules_after(action: str, *words: str) -> set[str]:
    """Top-level modules that a fresh interpreter has imported once `action` is done."""
    done = subprocess.run(
        [sys.executable, "-c", _SHOW.format(action=action), *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert last.startswith("MODULES")
    return {name.partition(".")[0] for name in last.split()[1:]}


def test_no_entry_point_imports_anything_heavy() -> None:
    assert {"pretrain", "finetune", "predict", "evaluate", "bench"} <= set(ENTRY_POINTS)
    imported = modules_after(f"import {', '.join(f'foundation.{name}' for name in ENTRY_POINTS)}")
    assert "foundation" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize(
    "words", [["--help"], ["model.widht=3"], ["+exp=smoke", "batches.seq_len=100000"]], ids=["help", "typo", "no fit"]
)
def test_help_and_mistakes_are_answered_without_torch(words: list[str]) -> None:
    imported = modules_after("import runpy; runpy.run_module('foundation.pretrain', run_name='__main__')", *words)
    assert "hydra" in imported
    assert not imported & HEAVY


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_helps_with_what_is_its_own(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"foundation.{name}", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m foundation.{name}" in done.stdout
    assert f"conf/{name}.yaml" in done.stdout
    assert "_schema" not in done.stdout and "HYDRA" not in done.stdout
    assert ("+exp=base | " in done.stdout) == (name == "pretrain")
    assert ("task=ag_news | " in done.stdout) == (name == "finetune")
