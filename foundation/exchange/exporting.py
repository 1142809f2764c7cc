"""From a run to a folder that transformers opens, whole or not at all, and only if it answers as the run does."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from foundation.core.errors import UserError
from foundation.core.files import folder_in_progress, write_json
from foundation.data.tokenizer import Tokenizer
from foundation.exchange.answers import Answerer, Texts, foundation_answers, real_texts
from foundation.exchange.card import model_card
from foundation.exchange.config import ExportConfig
from foundation.exchange.family import Stock
from foundation.exchange.tasks import has_pairs, stock_task, task_answers
from foundation.exchange.to_onnx import ONNX_FILE, check_onnx, require_onnx, write_onnx
from foundation.exchange.to_stock import family_of, stock_foundation
from foundation.exchange.tokenizer import write_tokenizer
from foundation.exchange.verify import StockReader, check_answers, require_transformers
from foundation.model.config import ModelConfig
from foundation.task.batches import tokenize
from foundation.task.finetuned import load_finetuned
from foundation.task.results import SCORES_FILE
from foundation.train.checkpoint import save_tensors
from foundation.train.config import Precision
from foundation.train.foundation import load_foundation

# Longer rows than this prove nothing more and take quadratic time.
_LONGEST_CHECK = 512


@dataclass(frozen=True, slots=True)
class Departure:
    """A model on its way out: as the stock class has it, and what it must answer to which texts."""

    stock: Stock
    model: ModelConfig
    tokenizer: Tokenizer
    seq_len: int
    answer: Answerer
    texts: list[Texts]


def export(cfg: ExportConfig) -> None:
    """Write cfg.to. Raises UserError, leaving nothing behind, where no stock class holds the model or the check fails."""
    to = Path(cfg.to)
    if to.exists():
        raise UserError(f"{to} is there already: choose another to=FOLDER or remove it")
    final = find_final(Path(cfg.run))
    require_transformers()
    if cfg.to_onnx:
        require_onnx()
    departure = depart(final)
    try:
        with folder_in_progress(to) as folder:
            difference = write_checked(departure, folder)
            if cfg.to_onnx:
                onnx_difference = write_checked_onnx(departure, folder)
            card = model_card(final, departure.stock, departure.seq_len, difference)
            (folder / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {to} ({error.strerror}): choose another to=FOLDER") from error
    print(f"{final} is {departure.stock.architecture} now: {to}")
    print(
        f"  transformers gives the same logits within {difference:.1g} (float32, rows of two lengths, padded and not)"
    )
    if cfg.to_onnx:
        print(f"  onnxruntime gives them within {onnx_difference:.1g} at two shapes: {to / ONNX_FILE}")
    for note in departure.stock.notes:
        print(f"  {note}")


def find_final(run: Path) -> Path:
    """The `final` of a run, of a seed, of a task's arm (its first seed), or the folder itself."""
    seeds = sorted(run.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    finished = [seed / "final" for seed in seeds if (seed / SCORES_FILE).is_file()]
    for folder in (run, run / "final", *finished[:1]):
        if (folder / "config.json").is_file():
            return folder
    raise UserError(
        f"there is neither a foundation nor a fine-tuned model in {run}: name a run's folder, as in  run=runs/small  "
        "or  run=runs/small/finetune/sst2/full"
    )


def depart(final: Path) -> Departure:
    """What is in a `final`, in stock form."""
    foundation = load_foundation(final)
    if "task" not in foundation.info:
        stock = stock_foundation(foundation)
        texts = [real_texts(pairs=False)]
        if stock.architecture.endswith(("ForPreTraining", "ForNextSentencePrediction")):
            texts.append(real_texts(pairs=True))
        seq_len = min(foundation.model.max_seq_len, int(foundation.info.get("seq_len", foundation.model.max_seq_len)))
        answer = foundation_answers(foundation, stock.architecture)
        return Departure(stock, foundation.model, foundation.tokenizer, seq_len, answer, texts)
    tuned = load_finetuned(final, torch.device("cpu"), batch_rows=8, precision=Precision.fp32)
    stock, texts = stock_task(tuned), [real_texts(pairs=has_pairs(tuned.how.task))]
    return Departure(stock, foundation.model, tuned.tokenizer, tuned.how.seq_len, task_answers(tuned), texts)


def write_checked(departure: Departure, folder: Path) -> float:
    """Write weights, settings and tokenizer, read them with transformers, and return the difference between answers."""
    stock = departure.stock
    save_tensors(folder / "model.safetensors", stock.tensors, {"format": "pt"})
    write_json(folder / "config.json", {**stock.config, "dtype": "float32"})
    # The library makes its files readable by their owner alone.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    inputs = family_of(departure.model).inputs
    write_tokenizer(folder, departure.tokenizer, max_tokens=departure.seq_len, inputs=inputs)
    reader = StockReader(folder, stock.architecture)
    limit = min(departure.seq_len, _LONGEST_CHECK)
    return max(check_answers(reader, departure.tokenizer, departure.answer, texts, limit) for texts in departure.texts)


def write_checked_onnx(departure: Departure, folder: Path) -> float:
    """Write model.onnx beside the rest and return the difference between onnxruntime's answers and ours."""
    reader = StockReader(folder, departure.stock.architecture)
    limit, texts = min(departure.seq_len, _LONGEST_CHECK), departure.texts[-1]
    write_onnx(reader, folder, texts, limit)
    expected = departure.answer(tokenize(texts.text, texts.text_pair, departure.tokenizer, limit))
    return check_onnx(reader, folder, expected, texts, limit)
