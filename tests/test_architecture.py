"""The house's rules, read off the code: imports point down, rooms are where their settings are, files stay small."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "foundation"
# From the ground up. A file imports from floors below its own, and from its own folder.
FLOORS = ["core", "data", "model", "objective", "train", "task", "evaluation", "exchange", "serving", "science"]
FLOORS += ["config", "top"]
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 300, 50, 7
FILES = sorted(PACKAGE.rglob("*.py"))


def floor_of(parts: tuple[str, ...]) -> int:
    """parts: module path below `foundation`, as ("train", "loop")."""
    return FLOORS.index(parts[0]) if parts and parts[0] in FLOORS else FLOORS.index("top")


def imports_of(path: Path) -> list[tuple[str, ...]]:
    """Modules of the package that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "foundation":
                names = [f"foundation.{alias.name}" for alias in node.names]
        found += [tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "foundation"]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    for imported in imports_of(path):
        same_room = len(parts) > 1 and imported[:1] == parts[:1]
        is_top = floor_of(parts) == floor_of(imported) == FLOORS.index("top")
        assert same_room or is_top or floor_of(imported) < floor_of(parts), (
            f"{'.'.join(parts)} imports {'.'.join(imported)}"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            parameters = [
                a.arg
                for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                if a.arg not in ("self", "cls")
            ]
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"
            assert len(parameters) <= MAX_PARAMETERS, f"{node.name} has {len(parameters)} parameters"


def test_only_the_top_floor_knows_hydra() -> None:
    users = [
        path
        for path in FILES
        if re.search(r"^\s*(from|import) (hydra|omegaconf)", path.read_text(encoding="utf-8"), re.M)
    ]
    assert [path.name for path in users] == ["config.py"]
    assert users[0].parent == PACKAGE


def test_nothing_is_pickled() -> None:
    for path in FILES:
        assert not re.search(r"\bimport pickle\b|torch\.(save|load)\(", path.read_text(encoding="utf-8")), path


def test_a_config_group_is_a_room() -> None:
    """conf/<group> configures the one file or folder of its name; exp and debug are recipes and modifiers."""
    rooms = {path.stem for path in FILES} | {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"exp", "debug"}
    # The trainer's settings are those of the loop.
    assert groups - {"trainer"} <= rooms


def test_the_repository_speaks_of_the_project_alone() -> None:
    pattern = re.compile(r"/(root|work|tmp|home)/\w")
    for path in [
        *FILES,
        *(ROOT / "conf").rglob("*.yaml"),
        ROOT / "README.md",
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
    ]:
        assert not pattern.search(path.read_text(encoding="utf-8")), path
