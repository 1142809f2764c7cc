"""The exported model as ONNX: named inputs and outputs, any batch size and length, checked in onnxruntime.

What is written is the stock class on padded rows, since that is what runtimes feed; our encoder's rows without padding
have no counterpart there.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundation.core.errors import UserError
from foundation.exchange.answers import Outputs, Texts
from foundation.exchange.verify import TOLERANCE, StockReader, difference

ONNX_FILE = "model.onnx"
# A message of protobuf ends at 2 GiB; weights beyond this go into a file beside it.
_ONE_FILE_BYTES = 1_900_000_000


def require_onnx() -> None:
    """Raise UserError, with the command that installs them, where the libraries are not there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"to_onnx=true needs {error.name}, which is not installed: pip install 'foundation-encoder[onnx]'"
        ) from None


class _Positional(nn.Module):
    """The stock model with inputs in order and its outputs as a tuple: what the exporter follows."""

    def __init__(self, model: nn.Module, inputs: list[str], outputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """(rows, tokens) each, or (questions, choices, tokens) -> the outputs by name."""
        found = self.model(**dict(zip(self.inputs, given, strict=True)))
        return tuple(found[name] for name in self.outputs)


def write_onnx(reader: StockReader, folder: Path, texts: Texts, max_tokens: int) -> None:
    """Write model.onnx into the folder that the reader has loaded."""
    encoded = reader.encode(texts, max_tokens)
    inputs, outputs = list(encoded), list(reader.outputs(encoded))
    size_bytes = sum(parameter.numel() * parameter.element_size() for parameter in reader.model.parameters())
    many = ("questions", "choices") if reader.is_of_choices else ("rows",)
    sizes = [torch.export.Dim(name, min=1, max=4096) for name in many]
    free: Any = dict(enumerate([*sizes, torch.export.Dim("tokens", min=2, max=reader.n_positions)]))
    with warnings.catch_warnings(), _quiet("torch.onnx"), torch.no_grad():
        warnings.simplefilter("ignore")  # about the exporter's own insides
        torch.onnx.export(
            _Positional(reader.model, inputs, outputs),
            tuple(encoded.values()),
            folder / ONNX_FILE,
            input_names=inputs,
            output_names=outputs,
            # One entry for *given, which is a tuple with a shape for each input.
            dynamic_shapes=(tuple(free for _ in inputs),),
            dynamo=True,
            external_data=size_bytes > _ONE_FILE_BYTES,
            verbose=False,
        )


class _quiet:
    """A logger that keeps to itself for a while."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self.before = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.before)


def check_onnx(reader: StockReader, folder: Path, expected: Outputs, texts: Texts, max_tokens: int) -> float:
    """Ask onnxruntime the short text alone and both together: two shapes. Returns the largest difference from `expected`.

    Raises UserError above TOLERANCE.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / ONNX_FILE), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = 0.0
    for part in (slice(0, 1), slice(0, 2)):
        encoded = reader.encode(texts[part], max_tokens)
        found = session.run(names, {name: tensor.numpy() for name, tensor in encoded.items()})
        answers = reader.by_row({name: torch.from_numpy(array) for name, array in zip(names, found, strict=True)})
        wanted = {name: rows[part] for name, rows in expected.items()}
        worst = max(worst, difference(wanted, answers, encoded["attention_mask"]))
    if not worst <= TOLERANCE:
        raise UserError(
            f"onnxruntime answers otherwise than the model here: logits differ by {worst:.2g}, more than {TOLERANCE:g}; "
            "nothing was written"
        )
    return worst
