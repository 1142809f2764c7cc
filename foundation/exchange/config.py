"""What leaves for the stock classes of transformers, and what comes in from them."""

from dataclasses import dataclass

from foundation.core.errors import UserError


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """run: a pretraining run, a task's arm (its first seed), a seed, or a `final`. to: a folder that is not there yet.

    to_onnx: also write model.onnx, with any batch size and length.
    """

    run: str
    to: str
    to_onnx: bool = False


@dataclass(kw_only=True, slots=True)
class ImportConfig:
    """folder: config.json, model.safetensors and a tokenizer, as transformers and the hub have them.

    name: the foundation's, <runs_dir>/NAME/final. encoder_only: leave the heads of pretraining behind.
    """

    folder: str
    name: str
    runs_dir: str = "runs"
    encoder_only: bool = False

    def check(self) -> None:
        """Raise UserError for a name that could not be found again as foundation=NAME."""
        if not self.name or self.name in (".", "..") or "/" in self.name:
            raise UserError(f"name={self.name} is not a name for a run folder: give a word, as in  name=bert_base")
