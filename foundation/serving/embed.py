"""Vectors of the texts of a file, a chunk at a time: to another file, to the neighbours of a query, or to both."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import torch
from tqdm import tqdm

from foundation.core.errors import UserError
from foundation.core.files import write_atomically
from foundation.core.memory import keep_freed_memory
from foundation.serving.config import EmbedConfig
from foundation.serving.neighbours import Nearest, table
from foundation.serving.predict import ahead, chunks
from foundation.serving.vector_files import VectorFile, open_vectors
from foundation.serving.vectors import TextEncoder, load_text_encoder
from foundation.task.batches import TokenRows
from foundation.task.readers import format_of, read_rows


def embed(cfg: EmbedConfig) -> None:
    """Write and search as the settings say. Raises UserError for what cannot be read or written."""
    keep_freed_memory()
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    encoder = load_text_encoder(cfg)
    sinks: list[VectorFile | Nearest] = []
    nearest = None
    if cfg.query is not None:
        queries = _queries(cfg)
        nearest = Nearest(queries, encoder.vectors(encoder.tokenize(queries)), cfg.k)
        sinks.append(nearest)
    with ExitStack() as stack:
        if cfg.output is not None:
            sinks.append(stack.enter_context(open_vectors(cfg.output, encoder.width)))
        n_texts, n_cut = _run(encoder, cfg, sinks)
    if n_cut:
        print(f"{n_cut:,} of {n_texts:,} texts were cut to {encoder.seq_len} tokens", file=sys.stderr)
    if cfg.output is not None:
        print(f"{n_texts:,} vectors of {encoder.width} numbers: {cfg.output}", file=sys.stderr)
    if nearest is not None:
        print(table(nearest))
        if cfg.neighbours is not None:
            _write_neighbours(nearest, cfg.neighbours)


def _run(encoder: TextEncoder, cfg: EmbedConfig, sinks: list[VectorFile | Nearest]) -> tuple[int, int]:
    """Every chunk to every sink; returns how many texts there were, and how many of them were cut."""
    kind = cfg.format or ("txt" if cfg.input == "-" else format_of(cfg.input))
    texts = (row.get("text" if kind == "txt" else cfg.text) for row in read_rows(cfg.input, file_format=kind))

    def prepare(chunk: list[str]) -> tuple[list[str], TokenRows]:
        return chunk, encoder.tokenize(chunk)

    n_texts = n_cut = 0
    with tqdm(unit="text", disable=None) as bar:
        for chunk, tokens in ahead(prepare, chunks(texts, cfg.chunk_rows)):
            vectors = encoder.vectors(tokens)
            for sink in sinks:
                sink.add(chunk, vectors)
            n_texts, n_cut = n_texts + len(chunk), n_cut + tokens.n_cut
            bar.update(len(chunk))
    return n_texts, n_cut


def _queries(cfg: EmbedConfig) -> list[str]:
    """The texts of the file that `query` names, else `query` itself."""
    query = str(cfg.query)
    if not Path(query).is_file():
        if query.endswith((".txt", ".csv", ".tsv", ".jsonl", ".gz")):
            raise UserError(f"no file at {query}: check the name; a query that is a text does not end so")
        return [query]
    column = "text" if format_of(query) == "txt" else cfg.text
    texts = [text for row in read_rows(query) if (text := row.get(column)).strip()]
    if not texts:
        raise UserError(f"query={query} has no text in it: give a file with a text a line, or the text itself")
    return texts


def _write_neighbours(nearest: Nearest, path: str) -> None:
    try:
        with write_atomically(Path(path)) as file:
            for record in nearest.records():
                file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another neighbours=FILE") from None
