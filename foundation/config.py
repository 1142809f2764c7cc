"""The top floor's door: composes settings with Hydra, refuses what nobody knows, hands plain dataclasses to the entry points.

The one file that imports Hydra and OmegaConf.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from foundation.core.config import LoggerConfig
from foundation.core.errors import UserError
from foundation.core.schema import free_dicts, settings_of, unknown_setting, wrong_value
from foundation.data.config import BatchesConfig, DataConfig, TokenizerConfig
from foundation.evaluation.config import HeldOutConfig, MinimalPairsConfig
from foundation.model.config import ModelConfig
from foundation.model.sharing import config as sharing
from foundation.objective.config import ObjectiveConfig, SentenceTask
from foundation.task.study_config import SuiteConfig
from foundation.train.config import AdamWConfig, MuonConfig, OptimConfig, ScheduleConfig, TrainerConfig
from foundation.train.duration import Duration

T = TypeVar("T")

# Settings that a resumed run may change: they say where and how fast, not what.
SPEED_ONLY = frozenset({"trainer", "logger", "resume", "runs_dir"})


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """Everything about a pretraining run. resume: false; true; auto (go on with the run if there is one, else start it)."""

    name: str
    seed: int = 0
    runs_dir: str = "runs"
    resume: str = "false"
    steps: int | None = None
    tokens: float | None = None
    budget: str | None = None
    data: DataConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    objective: ObjectiveConfig
    batches: BatchesConfig
    optim: OptimConfig
    schedule: ScheduleConfig
    trainer: TrainerConfig
    logger: LoggerConfig

    @property
    def duration(self) -> Duration:
        """How long."""
        return Duration(steps=self.steps, tokens=self.tokens, budget=self.budget)

    def check(self) -> None:
        """Raise UserError with all problems that can be seen before any work is done."""
        problems = []
        for part in (self.duration, self.model, self.objective, self.batches):
            try:
                part.check()
            except UserError as error:
                problems.append(str(error))
        if self.batches.seq_len > self.model.max_seq_len:
            problems.append(
                f"batches.seq_len={self.batches.seq_len} is beyond the model's positions (model.max_seq_len="
                f"{self.model.max_seq_len}): lower the one or raise the other"
            )
        if self.model.vocab_size != self.tokenizer.vocab_size:
            problems.append(
                f"model.vocab_size={self.model.vocab_size} is not tokenizer.vocab_size={self.tokenizer.vocab_size}"
            )
        if self.objective.sentence_task is not SentenceTask.none and self.batches.rows_per_step < 4:
            problems.append(
                f"a sentence task needs batches.rows_per_step of at least 4, not {self.batches.rows_per_step}"
            )
        if self.resume.lower() not in ("true", "false", "auto"):
            problems.append(f"resume={self.resume} must be true, false or auto")
        if problems:
            raise UserError("; ".join(problems))


# What a group's YAML may be when its setting has several kinds: the name that the YAML's defaults give, and the dataclass.
_KINDS: dict[str, dict[str, type]] = {
    "optim": {"adamw_schema": AdamWConfig, "muon_schema": MuonConfig},
    "sharing": {f"{method.value}_schema": kind for method, kind in sharing.KINDS.items()},
    "task": {"suite_schema": SuiteConfig},
    "evaluation": {"held_out_schema": HeldOutConfig, "minimal_pairs_schema": MinimalPairsConfig},
}


def conf_folder() -> Path:
    """Where the YAMLs are: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def register(schema: type, config_name: str) -> None:
    """Tell Hydra the types of an entry point's settings."""
    store = ConfigStore.instance()
    store.store(name=f"{config_name}_schema", node=schema)
    for group, kinds in _KINDS.items():
        for name, kind in kinds.items():
            store.store(group=group, name=name, node=kind)
    store.store(group="hydra/help", name="foundation", node={"template": _help_template(schema, config_name)})


def _help_template(schema: type, config_name: str) -> str:
    """What --help prints, by Hydra's placeholders: of the YAMLs in conf/ those that mean something to this entry point."""
    groups = _groups_of(schema)
    choices = "\n".join(f"{group}={' | '.join(_choices(group.lstrip('+')))}" for group in groups)
    chosen = f"== YAMLs of conf/, by group ==\n{choices}\n\n" if groups else ""
    heading = f"== Settings, key=value (what each does: comments in conf/{config_name}.yaml) =="
    return f"${{hydra.help.header}}\n{chosen}{heading}\n$CONFIG\n${{hydra.help.footer}}\n"


def _groups_of(schema: type) -> list[str]:
    """Folders of conf/ that an entry point takes a YAML from, with a plus where it is added."""
    groups = [name for name in dict(settings_of(schema)) if (conf_folder() / name).is_dir()]
    return groups + (["+exp", "+debug"] if schema is PretrainConfig else [])


def _choices(group: str) -> list[str]:
    """The names of a group's YAMLs."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def run_entry(schema: type[T], config_name: str, body: Callable[[T, dict[str, Any]], None]) -> None:
    """Compose the command line's settings, check them, and call body(settings, the same as plain resolved values).

    A user's mistake ends the program with its one sentence and exit status 1.
    """
    register(schema, config_name)

    @hydra.main(config_path=str(conf_folder()), config_name=config_name, version_base="1.3")
    def entry(cfg: DictConfig) -> None:
        try:
            body(to_dataclass(cfg, schema), to_plain_settings(cfg))
        except UserError as error:
            sys.exit(f"error: {error}")

    try:
        check_command_line(sys.argv[1:], schema)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.argv[1:] = [_open_dicts(word, schema) for word in sys.argv[1:]]
    entry()


def _open_dicts(word: str, schema: type) -> str:
    """Of a setting whose keys are the user's own, `++`: Hydra takes a key that is not there yet for a mistake."""
    is_free = any(re.match(rf"{re.escape(name)}[.=]", word) for name in free_dicts(schema))
    return f"++{word}" if is_free else word


def recompose(
    schema: type[T], config_name: str, choices: dict[str, str], more: Sequence[str] = ()
) -> tuple[T, dict[str, Any]]:
    """Settings and their plain values as the same command line would give them with other YAMLs of some groups.

    Args:
        choices: group -> name of its YAML. What the command line says inside these groups is left out.
        more: words that follow those of the command line, and so have the last word.

    Raises:
        UserError: there is no such YAML, or `more` has a word that is no setting.
    """
    check_command_line(more, schema)
    for group, name in choices.items():
        _refuse_unknown_choice(group, name)
    parser = OverridesParser.create()
    rooms = {word: str(parser.parse_override(word).key_or_group) for word in HydraConfig.get().overrides.task}
    words = [word for word, room in rooms.items() if room.split(".")[0] not in choices]
    cfg = hydra.compose(config_name, [*words, *(f"{group}={name}" for group, name in choices.items()), *more])
    return to_dataclass(cfg, schema), to_plain_settings(cfg)


def to_plain_settings(cfg: DictConfig) -> dict[str, Any]:
    """Resolved settings as dicts, lists, numbers and strings."""
    plain = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def to_dataclass(cfg: DictConfig, schema: type[T]) -> T:
    """The composed settings as the schema's dataclass. Raises UserError on an unknown key or a value that is missing."""
    unknown = sorted(_unknown_keys(cfg, ""))
    if unknown:
        raise UserError("; ".join(unknown_setting(key, schema) for key in unknown))
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"these settings need a value: {', '.join(missing)}; give it as in  {missing[0]}=VALUE")
    try:
        settings = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise UserError(f"settings do not fit together: {error}") from None
    assert isinstance(settings, schema)
    return settings


def _unknown_keys(node: DictConfig, prefix: str) -> Iterator[str]:
    """`+key=` opens a typed node without a word, so the composed settings are held against their dataclasses."""
    kind = OmegaConf.get_type(node)
    known = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else None
    for key in node:
        name = f"{prefix}{key!s}"
        if known is not None and key not in known:
            yield name
            continue
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _unknown_keys(child, f"{name}.")


def check_command_line(words: Iterable[str], schema: type) -> None:
    """Hold a command line against the schema before anything is composed, so that a mistake is answered with one sentence.

    Raises:
        UserError: a word that is no setting, a key that nobody knows, a YAML that is not there, a value of another kind.
    """
    words = list(words)
    settings = _settings_among(words)
    try:
        overrides = OverridesParser.create().parse_overrides(settings)
    except HydraException as error:
        raise UserError(
            f"cannot read the command line: {' '.join(str(error).split())}; settings are written key=value"
        ) from None
    types: dict[str, list[Any]] = {}
    for name, hint in settings_of(schema):
        types.setdefault(name, []).append(hint)
    groups = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    # Of a folder of the user's own we know no YAMLs.
    ours_only = not any(re.match("-cd|--config-dir|hydra.searchpath", word) for word in words)
    for override in overrides:
        key = str(override.key_or_group)
        group = key.split("@")[0].split("/")[0]
        if "." not in key and group in groups - {name.lstrip("+") for name in _groups_of(schema)}:
            ours = ", ".join(_groups_of(schema)) or "no YAML"
            raise UserError(f"{override.input_line} is of another command: this one takes {ours}")
        if key in ("exp", "debug") and not override.is_add():
            word = override.input_line
            raise UserError(f"{word} is not in every command: add it by a plus sign, +{word}")
        if group in groups and "." not in key:
            if ours_only and key in groups and isinstance(choice := override.value(), str):
                _refuse_unknown_choice(key, choice)
        elif key in types:
            _refuse_wrong_value(override, types[key], is_sweep=not {"-m", "--multirun"}.isdisjoint(words))
        elif key.split(".")[0] != "hydra" and not any(key.startswith(f"{name}.") for name in free_dicts(schema)):
            raise UserError(unknown_setting(key, schema))


# Hydra's flags that are followed by a value.
_FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--info", "-i"}
_FLAGS_WITH_VALUE |= {"--config-dir", "-cd", "--experimental-rerun"}


def _settings_among(words: list[str]) -> list[str]:
    """The words that are not Hydra's flags. Raises UserError for one that sets nothing."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or (before in _FLAGS_WITH_VALUE and "=" not in word):
            continue
        if "=" not in word and not word.startswith("~"):
            raise UserError(f"{word} sets nothing: settings are written key=value, and --help shows them")
        found.append(word)
    return found


def _refuse_unknown_choice(group: str, choice: str) -> None:
    if choice not in (known := _choices(group)):
        raise UserError(f"there is no {group} {choice}: choose among {', '.join(known)}")


def _refuse_wrong_value(override: Override, hints: list[Any], *, is_sweep: bool) -> None:
    """hints: the setting's types, one of which must take the value."""
    if override.is_delete() or (is_sweep and override.is_sweep_override()):
        return
    if override.is_sweep_override() or not any(_takes(hint, override.value()) for hint in hints):
        raise UserError(wrong_value(str(override.key_or_group), override.get_value_string(), hints[0]))


def _takes(hint: Any, value: Any) -> bool:
    """Whether a setting of this type can be given the value: OmegaConf is asked, as Hydra would."""
    node = OmegaConf.structured(dataclasses.make_dataclass("One", [("setting", hint)]))
    try:
        OmegaConf.update(node, "setting", value)
    except OmegaConfBaseException:
        return False
    return True
