"""The top floor's door: composes settings with Hydra, refuses what nobody knows, hands plain dataclasses to the entry points.

The one file that imports Hydra and OmegaConf.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from foundation.core.ending import one_sentence
from foundation.core.errors import UserError
from foundation.core.schema import free_dicts, settings_of, unknown_setting, wrong_value
from foundation.evaluation.config import HeldOutConfig, MinimalPairsConfig
from foundation.model.sharing import config as sharing
from foundation.task.study_config import SuiteConfig
from foundation.train.config import AdamWConfig, MuonConfig
from foundation.train.pretrain_config import PretrainConfig

T = TypeVar("T")

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
    choices = "\n".join(f"{group}={' | '.join(_choices(group.lstrip('+')))}" for group in _groups_of(schema))
    chosen = f"== YAMLs of conf/, by group ==\n{choices}\n\n" if choices else ""
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

    What a user can mend ends the program with one sentence, see core/ending.py.
    """
    register(schema, config_name)

    @hydra.main(config_path=str(conf_folder()), config_name=config_name, version_base="1.3")
    def entry(cfg: DictConfig) -> None:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            sys.argv[1:] = HydraConfig.get().overrides.task  # of this one of the runs
        with one_sentence():
            body(to_dataclass(cfg, schema), to_plain_settings(cfg))

    with one_sentence():
        check_command_line(sys.argv[1:], schema)
        check_choices(sys.argv[1:], schema, config_name)
        sys.argv[1:] = _as_hydra_takes(sys.argv[1:], schema)
        entry()


def _as_hydra_takes(words: list[str], schema: type) -> list[str]:
    """Flags first, as Hydra knows no setting behind one that stands between two; `++` before settings whose keys are the
    user's own; and `+debug` last: a recipe behind it would undo it."""
    names, settings = "|".join(map(re.escape, free_dicts(schema))), _settings_among(words)
    opened = [f"++{word}" if names and re.match(rf"({names})[.=]", word) else word for word in settings]
    flags = [word for word in words if word not in settings]
    return flags + sorted(opened, key=lambda word: word.startswith("+debug="))


def recompose(
    schema: type[T], config_name: str, choices: dict[str, str], more: Sequence[str] = ()
) -> tuple[T, dict[str, Any]]:
    """Settings and their plain values as the same command line would give them with other YAMLs of some groups.

    Args:
        choices: group -> name of its YAML. What the command line says inside these groups is left out.
        more: words that follow those of the command line, and so have the last word.

    Raises:
        UserError: there is no such YAML, or `more` has a word that is no setting, or one that another YAML has.
    """
    check_command_line(more, schema)
    for group, name in choices.items():
        _refuse_unknown_choice(group, name)
    given = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    rooms = {str(word.input_line): str(word.key_or_group) for word in given}
    words = [word for word, room in rooms.items() if room.split(".")[0] not in choices]
    words += [*(f"{group}={name}" for group, name in choices.items()), *more]
    check_choices(words, schema, config_name)
    cfg = hydra.compose(config_name, words)
    return to_dataclass(cfg, schema), to_plain_settings(cfg)


def to_plain_settings(cfg: DictConfig) -> dict[str, Any]:
    """Resolved settings as dicts, lists, numbers and strings."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


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
            f"cannot read the command line: {' '.join(str(error).split())}; a value with signs of its own in it is quoted for "
            "the shell and again, 'key=\"VALUE\"'; settings are written key=value"
        ) from None
    types: dict[str, list[Any]] = {}
    for name, hint in settings_of(schema):
        types.setdefault(name, []).append(hint)
    groups = {path.name for path in conf_folder().iterdir() if path.is_dir()}
    ours_only = not _has_own_folder(words)
    for override in overrides:
        word, key = override.input_line, str(override.key_or_group)
        group = key.split("@")[0].split("/")[0]
        if "." not in key and group in groups - {name.lstrip("+") for name in _groups_of(schema)}:
            ours = ", ".join(_groups_of(schema)) or "no YAML"
            raise UserError(f"{word} is of another command: this one takes {ours}")
        if key in ("exp", "debug") and not override.is_add():
            raise UserError(f"{word} is not in every command: add it by a plus sign, +{word}")
        if group in groups and "." not in key:
            if ours_only and key in groups and isinstance(choice := override.value(), str):
                _refuse_unknown_choice(key, choice)
        elif key in types:
            _refuse_wrong_value(override, types[key], is_sweep=not {"-m", "--multirun"}.isdisjoint(words))
        elif key.split(".")[0] != "hydra" and not any(key.startswith(f"{name}.") for name in free_dicts(schema)):
            raise UserError(unknown_setting(key, schema))


def check_choices(words: list[str], schema: type, config_name: str) -> None:
    """Refuse a setting that a group has with another of its YAMLs only: which of them a recipe takes, composing says.

    Raises:
        UserError: as `optim.muon_lr=0.01` where the optimizer is AdamW.
    """
    if not {"-m", "--multirun"}.isdisjoint(words) or _has_own_folder(words):
        return  # several choices, or YAMLs that are not ours
    overrides = OverridesParser.create().parse_overrides(_settings_among(words))
    doubtful = {key: _choices_with(key, schema) for key in (str(word.key_or_group) for word in overrides)}
    doubtful = {key: having for key, having in doubtful.items() if having}
    if not doubtful:
        return
    choices = [str(word.input_line) for word in overrides if "." not in str(word.key_or_group)]
    is_inside, ours = GlobalHydra.instance().is_initialized(), str(conf_folder().resolve())  # inside: for recompose
    with nullcontext() if is_inside else hydra.initialize_config_dir(ours, version_base="1.3"):
        try:
            cfg = hydra.compose(config_name, choices, return_hydra_config=True)
        except HydraException:
            return  # the same mistake is met, and told, when everything is composed
    for key, having in doubtful.items():
        group = key.split(".")[0]
        if (chosen := cfg.hydra.runtime.choices.get(group)) not in having:
            alike = [name for name in having if name.partition("_")[2] == chosen.partition("_")[2]]
            raise UserError(
                f"{key} is a setting of {group}={' | '.join(having)}, and here {group} is {chosen}: "
                f"add {group}={[*alike, *having][0]}, or leave it out"
            )


def _choices_with(key: str, schema: type) -> list[str]:
    """The YAMLs of a setting's group that have it; none where all do, or where its group has one kind only."""
    group, _, rest = key.partition(".")
    if group not in _KINDS or not rest or group not in (rooms := dict(settings_of(schema))):
        return []
    having = [
        choice
        for choice in _choices(group)
        if any(name == rest for name, _ in settings_of(_kind_of(group, choice) or rooms[group]))
    ]
    return having if len(having) < len(_choices(group)) else []


def _kind_of(group: str, choice: str) -> type | None:
    """The dataclass that a YAML's defaults name, themselves or by another YAML; None: that of the entry point's schema."""
    yaml = OmegaConf.load(conf_folder() / group / f"{choice}.yaml")
    assert isinstance(yaml, DictConfig)
    for default in map(str, yaml.get("defaults", [])):
        if kind := _KINDS[group].get(default) or (_kind_of(group, default) if default in _choices(group) else None):
            return kind
    return None


def _has_own_folder(words: Iterable[str]) -> bool:
    """Whether YAMLs come from a folder of the user's, of which we know none."""
    return any(re.match("-cd|--config-dir|hydra.searchpath", word) for word in words)


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
