"""What files hold decides about a corpus, not when they were written: what was copied or touched is not tokenized again."""

from pathlib import Path
from typing import Any

from foundation.core.errors import UserError
from foundation.core.files import checksum_file, fingerprint, read_json, write_json
from foundation.core.plain import to_plain
from foundation.data.config import DataConfig, TokenizerConfig
from foundation.data.corpus import FORMAT_VERSION, MANIFEST
from foundation.data.sources import describe_sources
from foundation.data.tokenizer import Tokenizer, tokenizer_file

Sources = list[dict[str, Any]]
_TIME, _CHECKSUM = "mtime_ns", "checksum"


def with_checksums(data: DataConfig, sources: Sources) -> Sources:
    """For the manifest of a corpus that has just been read from them; as they are, where a file has changed meanwhile.

    And where perhaps little of them was read, so that a checksum of all would be the longest part.
    """
    if data.max_words is not None or describe_sources(data) != sources:
        return sources
    return [
        {**source, _CHECKSUM: checksum_file(Path(source["file"]))} if "file" in source else source for source in sources
    ]


def same_but_for_times(cache_dir: Path, data: DataConfig, tokenizer: TokenizerConfig, sources: Sources) -> Path | None:
    """The folder of a corpus with these settings, from files of the same names, sizes and checksums; None: there is none.

    Its manifest is told the files' times, so that a later start need not look into them.
    """
    for path in sorted(cache_dir.glob(f"[!.]*/{MANIFEST}")):  # a hidden one is in the making, or was when it was killed
        try:
            manifest = read_json(path)
        except UserError:  # whoever asks for that one will hear of it
            continue
        if _is_of(manifest, data, tokenizer) and _are_the_same(manifest["sources"], sources):
            known = zip(manifest["sources"], sources, strict=True)
            write_json(path, {**manifest, "sources": [{**then, **now} for then, now in known]})
            return path.parent
    return None


def _is_of(manifest: dict[str, Any], data: DataConfig, tokenizer: TokenizerConfig) -> bool:
    """Whether the settings are the same, and the tokenizer too where it was given."""
    asked = {"format_version": FORMAT_VERSION, "data": data, "tokenizer": tokenizer}
    if fingerprint({name: manifest.get(name) for name in asked}) != fingerprint(to_plain(asked)):
        return False
    return (
        not tokenizer.path
        or Tokenizer.load(tokenizer_file(tokenizer.path)).fingerprint == manifest["tokenizer_fingerprint"]
    )


def _are_the_same(then: Sources, now: Sources) -> bool:
    """Sizes and names first; files are read only where they differ in nothing but their times."""

    def outside(sources: Sources) -> Sources:
        return [{key: value for key, value in source.items() if key not in (_TIME, _CHECKSUM)} for source in sources]

    return outside(then) == outside(now) and all(
        old.get(_TIME) == new.get(_TIME) or (_CHECKSUM in old and old[_CHECKSUM] == checksum_file(Path(new["file"])))
        for old, new in zip(then, now, strict=True)
    )
