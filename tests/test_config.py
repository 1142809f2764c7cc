"""Every recipe composes, every mistake is answered with what to do."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from foundation.config import _as_hydra_takes, check_choices, check_command_line, conf_folder, register, to_dataclass
from foundation.core.errors import UserError
from foundation.evaluation.config import EvaluateConfig
from foundation.task.study_config import FinetuneConfig
from foundation.train.pretrain_config import PretrainConfig

RECIPES = sorted(path.stem for path in (conf_folder() / "exp").glob("*.yaml"))


def composed(*overrides: str) -> PretrainConfig:
    register(PretrainConfig, "pretrain")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        return to_dataclass(compose("pretrain", list(overrides)), PretrainConfig)


def finetune_composed(*overrides: str) -> FinetuneConfig:
    register(FinetuneConfig, "finetune")
    with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
        return to_dataclass(compose("finetune", list(overrides)), FinetuneConfig)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_and_fits_together(recipe: str) -> None:
    cfg = composed(f"+exp={recipe}")
    cfg.check()
    assert cfg.name == recipe


@pytest.mark.parametrize("schedule", ["linear", "cosine", "stable_decay"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_another_schedule(recipe: str, schedule: str) -> None:
    composed(f"+exp={recipe}", f"schedule={schedule}").check()


@pytest.mark.parametrize("optim", ["adamw", "muon"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_another_optimizer(recipe: str, optim: str) -> None:
    """What is of one optimizer only stands in a YAML of conf/optim/, never in a recipe."""
    cfg, plain = composed(f"+exp={recipe}", f"optim={optim}"), composed(f"optim={optim}", "steps=1")
    assert cfg.optim == plain.optim


GROUPS = ["data", "tokenizer", "model", "objective", "optim", "schedule", "trainer"]


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, path.stem) for group in GROUPS for path in sorted((conf_folder() / group).glob("*.yaml"))],
)
def test_every_choice_composes(group: str, choice: str) -> None:
    if (group, choice) in (("model", "bert"), ("model", "modern")):
        with pytest.raises(UserError, match=r"need a value: model\.ffn_width"):
            composed(f"{group}={choice}")
        return
    extra = {"text": ["data.files=[a.txt]"], "hub": ["data.hub=[{name: a/b}]"]}.get(choice, [])
    composed(f"{group}={choice}", "steps=1", *extra).check()


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("model.widht=3", "model.width"),
        ("+batches.rows=3", "batches.rows_per_step"),
        ("learning_rate=1", "optim.lr"),
        ("optim.learning_rate=1", "optim.lr"),
        ("per_device_train_batch_size=8", "batches.rows_per_step"),
        ("model.num_hidden_layers=2", "model.layers"),
        ("+optim.muon_lrr=1", "optim.muon_lr"),
        ("seqlen=1", "batches.seq_len"),
        ("max_length=1", "batches.seq_len"),
        ("max_position_embeddings=1", "model.max_seq_len"),
    ],
)
def test_unknown_key_is_answered_with_the_nearest(word: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"unknown setting .*; the nearest known one is {nearest}"):
        check_command_line([word], PretrainConfig)


def test_the_same_name_is_nearer_than_one_that_has_it_for_a_part() -> None:
    """Fine-tuning has layer_lr_decay in front of optim.lr."""
    with pytest.raises(UserError, match=r"unknown setting learning_rate; the nearest known one is optim\.lr$"):
        check_command_line(["learning_rate=1"], FinetuneConfig)


def test_a_batch_is_not_answered_with_how_many_rows_are_scored() -> None:
    """evaluation.rows is of the result, and a batch is not."""
    with pytest.raises(UserError, match=r"the nearest known one is evaluation\.batch_tokens$"):
        check_command_line(["batch_size=8"], EvaluateConfig)


def test_a_key_that_is_like_none_of_its_room_is_answered_with_what_is_there() -> None:
    with pytest.raises(UserError, match=r"unknown setting optim\.foo; optim has clip_norm, lr, beta1"):
        check_command_line(["optim.foo=1"], PretrainConfig)


@pytest.mark.parametrize("word", ["+nothing=1", "quux=2", "data.hub.name=a/b"])
def test_a_key_that_is_like_none_is_not_answered_with_a_guess(word: str) -> None:
    key = word.strip("+").partition("=")[0]
    answer = "the nearest known one is data.hub$" if "hub" in word else "--help lists those that there are$"
    with pytest.raises(UserError, match=f"unknown setting {key}; {answer}"):
        check_command_line([word], PretrainConfig)


def test_known_keys_and_groups_pass() -> None:
    words = [
        "+exp=small",
        "model=bert_tiny",
        "model.width=64",
        "optim.muon_lr=1",
        "+debug=one_step",
        "hydra.run.dir=x",
        "~tokens",
    ]
    check_command_line(words, PretrainConfig)


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("steps=abc", r"steps=abc does not fit: steps takes a whole number, as 100 \(or null\)$"),
        ("seed=1,2", r"seed takes a whole number, as 100; several values, a run each, are a sweep: add -m$"),
        ("steps=2.5", "steps=2.5 does not fit: steps takes a whole number"),
        ("steps=null,5", "steps=null,5 does not fit: steps takes a whole number"),
        ("tokens=many", "tokens=many does not fit: tokens takes a number, as 0.5 or 1e-3"),
        ("data.files=foo.txt", r"data.files takes a list, written as in  'data.files=\[foo.txt\]'$"),
        ("data.files=a.txt,b.txt", r"written as in  'data.files=\[a.txt,b.txt\]'$"),
        ("name=[a]", "name takes a text, quoted if it has brackets"),
        ("trainer.precision=fp8", "trainer.precision takes one of fp32, bf16, fp64$"),
        ("objective.masking=3", r"takes settings of its own, written as in  objective\.masking\.\w+=VALUE$"),
        ("+trainer.precision=fp8", "trainer.precision takes one of"),
        ("optim.adamw.lr=fast", "optim.adamw.lr takes a number"),
        ("model=enormous", "there is no model enormous: choose among bert, bert_base, "),
        ("+exp=smal", "there is no exp smal: choose among base, "),
        ("exp=small", r"exp=small is not in every command: add it by a plus sign, \+exp=small$"),
        ("bench=full", r"bench=full is of another command: this one takes data, .*\+exp, \+debug$"),
        ("smoke", "smoke sets nothing: settings are written key=value, and --help shows them$"),
        ("name=;", "is quoted for the shell and again, 'key=\"VALUE\"'; settings are written key=value$"),
        ("data.files=[a", "cannot read the command line: .*; settings are written key=value$"),
    ],
)
def test_what_a_setting_cannot_take_is_answered_with_what_it_can(word: str, answer: str) -> None:
    with pytest.raises(UserError, match=answer) as refusal:
        check_command_line([word], PretrainConfig)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "words",
    [
        ["steps=100", "tokens=1e6", "tokens=5", "budget=10min", "resume=true", "trainer.precision=bf16"],
        ["steps=null", "name='a, b'", "name=${seed}", "runs_dir=${oc.env:HOME}/runs", "data.hub=[{name: a/b}]"],
        [
            "data.files=[]",
            "data.files=[a.txt,'b c.txt']",
            "model.dropout=${model.attention_dropout}",
            "~tokens",
            "optim.lr=1",
        ],
        ["--multirun", "seed=1,2", "model=bert_tiny,bert_mini"],
        ["--cfg", "job", "-cn", "pretrain", "--info", "defaults", "--help"],
        ["--config-dir", "mine", "model=enormous"],
        ["--config-dir=mine", "model=enormous"],
    ],
)
def test_what_a_setting_can_take_passes(words: list[str]) -> None:
    check_command_line(words, PretrainConfig)


SCHEMAS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "evaluate": EvaluateConfig}


@pytest.mark.parametrize(
    ("entry", "words", "answer"),
    [
        (
            "pretrain",
            ["+exp=small", "optim.muon_lr=0.01"],
            r"optim\.muon_lr is .* optim=muon \| muon_finetune \| muon_small \| .*, and here optim is adamw",
        ),
        ("pretrain", ["+exp=small", "+optim.muon_lr=0.01"], "add optim=muon, or leave it out$"),
        (
            "pretrain",
            ["optim.lr=1e-3", "+exp=small_general"],
            r"optim=adamw \| adamw_base \| .*, and here optim is muon_small: add optim=adamw,",
        ),
        (
            "finetune",
            ["task=sst2", "task.tasks=[rte]"],
            r"task\.tasks is a setting of task=glue \| six \| suite, and here task is sst2",
        ),
        ("finetune", ["task=sst2", "sharing=probe", "sharing.rank=4"], "and here sharing is probe"),
        ("evaluate", ["evaluation.max_pairs=3"], r"evaluation=blimp \| minimal_pairs, and here evaluation is held_out"),
        (
            "finetune",
            ["task=sst2", "sharing.rank=4"],
            "a setting of sharing=lora, and here sharing is full: add sharing=lora",
        ),
    ],
)
def test_a_setting_of_another_choice_of_its_group_is_answered_with_that_choice(
    entry: str, words: list[str], answer: str
) -> None:
    schema = SCHEMAS[entry]
    register(schema, entry)
    check_command_line(words, schema)
    with pytest.raises(UserError, match=answer) as refusal:
        check_choices(words, schema, entry)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("pretrain", ["+exp=small", "optim=muon", "optim.muon_lr=0.01", "optim.clip_norm=1"]),
        ("pretrain", ["+exp=small_general", "optim.muon_lr=0.01", "optim.adamw.lr=0.01"]),
        ("pretrain", ["--multirun", "optim=adamw,muon", "optim.muon_lr=0.01"]),
        ("pretrain", ["--config-dir=mine", "optim=mine", "optim.muon_lr=0.01"]),
        ("finetune", ["task=six", "task.tasks=[rte]"]),
        ("finetune", ["task=sst2", "sharing=lora", "sharing.rank=4"]),
        ("evaluate", ["evaluation=blimp", "evaluation.max_pairs=10"]),
        ("pretrain", ["+optim=muon", "optim.lr=0.01"]),  # composing says what is wrong with the first word
    ],
)
def test_settings_of_the_choice_that_is_made_pass(entry: str, words: list[str]) -> None:
    schema = SCHEMAS[entry]
    register(schema, entry)
    check_choices(words, schema, entry)


def test_every_value_of_a_task_and_a_suite_passes() -> None:
    words = ["task.tasks=[a,b]", "task.parents={a: b}", "task.parents.a=b", "task.labels=[x]", "n_train=[8,full]"]
    check_command_line(["task=suite", *words, "sharing.layers=2"], FinetuneConfig)


def test_plus_does_not_smuggle_a_key_past_a_recipe() -> None:
    """Hydra accepts `+model.foo=3` with a schema in silence; the composed settings are checked too."""
    with pytest.raises(UserError, match=r"unknown setting model\.foo"):
        composed("+exp=smoke", "+model.foo=3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["steps=5", "budget=1min"],
            r"exactly one of steps=, tokens=, epochs=, budget=.*given: steps=5 and budget=1min",
        ),
        ([], "given: nothing"),
        (["budget=soon"], "budget=soon is not a duration: write it like 90s, 10min or 1.5h"),
        (["steps=0"], "steps=0 must be positive"),
        (["steps=5", "name="], "name= must name a folder inside runs_dir=runs"),
        (["steps=5", "name=../x"], r"name=\.\./x must name a folder inside runs_dir=runs"),
        (["steps=5", "tokenizer.min_frequency=0"], "tokenizer.min_frequency=0 must be at least 1"),
        (["steps=5", "batches.only_step=-1"], "batches.only_step=-1 must be at least 0"),
        (["steps=5", "objective.sentence_weight=-1"], "objective.sentence_weight=-1.0 must be at least 0"),
        (["steps=5", "schedule=stable_decay", "schedule.decay_share=-1"], r"decay_share=-1.0 must be in \[0, 1\]"),
        (
            ["steps=5", "optim=muon", "optim.adamw.clip_norm=0.1"],
            r"optim.adamw.clip_norm is not read: optim.clip_norm is",
        ),
        (["steps=5", "batches.seq_len=1000"], "batches.seq_len=1000 is beyond the model's positions"),
        (["steps=5", "model.heads=3"], "model.heads=3 does not divide model.width=256"),
        (["steps=5", "resume=perhaps"], "resume=perhaps must be true, false, auto or again"),
        (["steps=5", "name=mine", "resume=again"], "resume=again clears the run before it away, and name=mine is none"),
        (["steps=5", "model.vocab_size=7"], "model.vocab_size=7 is not tokenizer.vocab_size=8192"),
        (["steps=5", "objective.masking.rate=1.5"], r"objective.masking.rate=1.5 must be in \(0, 1\)"),
        (["steps=5", "batches.rows_per_step=2"], "needs at least 4 rows in every step, not 2"),
        (
            ["steps=5", "schedule=stable_decay", "schedule.decay_share=0.99"],
            "warmup_share=0.05 and decay_share=0.99 are more",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        composed(*words).check()


OF_STEPPING = [
    ("optim.lr=-1e-3", r"optim\.lr=-0\.001 must be finite and at least 0"),
    ("optim.lr=inf", r"optim\.lr=inf must be finite"),
    ("optim.weight_decay=nan", r"optim\.weight_decay=nan must be finite and at least 0"),
    ("optim.beta1=1.5", r"optim\.beta1=1\.5 must be in \[0, 1\)"),
    ("optim.eps=0", r"optim\.eps=0\.0 must be above 0"),
    ("optim.clip_norm=-1", r"optim\.clip_norm=-1\.0 must be at least 0"),
    ("schedule.warmup_share=10", r"schedule\.warmup_share=10\.0 must be in \[0, 1\]"),
    (
        "schedule.decay_share=0.2",
        r"schedule\.decay_share is of stable_decay, and here schedule\.shape=linear: leave it out",
    ),
    ("schedule.final=2", r"schedule\.final=2\.0 must be in \[0, 1\]"),
    ("trainer.keep=-1", r"trainer\.keep=-1 must be at least 0"),
    ("trainer.micro_batch_rows=-1", r"trainer\.micro_batch_rows=-1 must be at least 0"),
    ("trainer.save_every_steps=-1", r"trainer\.save_every_steps=-1 must be at least 0"),
    ("trainer.eval_every_steps=-1", r"trainer\.eval_every_steps=-1 must be at least 0"),
    ("trainer.profile_steps=-1", r"trainer\.profile_steps=-1 must be at least 0"),
    ("trainer.eval_rows=0", r"trainer\.eval_rows=0 must be at least 1"),
    ("trainer.threads=-1", r"trainer\.threads=-1 must be at least 0"),
    ("logger.every_steps=0", r"logger\.every_steps=0 must be at least 1"),
]


@pytest.mark.parametrize(("word", "message"), OF_STEPPING)
def test_how_to_step_is_checked_before_any_work_in_pretraining_and_in_fine_tuning(word: str, message: str) -> None:
    for cfg in (composed("steps=5", "optim=adamw", word), finetune_composed("task=sst2", "optim=adamw", word)):
        with pytest.raises(UserError, match=message):
            cfg.check()


def test_muons_settings_are_checked_with_those_of_its_adamw_and_all_are_told_at_once() -> None:
    keys = ["optim.muon_lr", "optim.muon_weight_decay", "optim.momentum", "optim.adamw.beta2", "trainer.keep"]
    with pytest.raises(UserError) as refusal:
        composed(
            "steps=5", "optim=muon", "optim.momentum=1", *(f"{key}=-1" for key in keys if key != "optim.momentum")
        ).check()
    assert [problem.split("=")[0] for problem in str(refusal.value).split("; ")] == keys


def test_warm_up_and_decay_may_share_all_steps_between_them() -> None:
    composed("steps=5", "schedule=stable_decay", "schedule.warmup_share=0.1", "schedule.decay_share=0.9").check()
    composed("steps=5", "schedule=linear", "schedule.warmup_share=0.9").check()


def command(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "foundation.pretrain", *words],
        capture_output=True,
        text=True,
        cwd=cwd or conf_folder().parent,
    )


def test_a_typo_on_the_command_line_is_one_sentence_and_a_failure() -> None:
    done = command("+exp=smoke", "model.widht=3")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: unknown setting model.widht; the nearest known one is model.width"


def test_a_value_of_another_kind_is_one_sentence_and_a_failure() -> None:
    done = command("+exp=smoke", "steps=abc")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: steps=abc does not fit: steps takes a whole number, as 100 (or null)"


def test_help_helps() -> None:
    done = command("--help")
    assert done.returncode == 0
    assert "python -m foundation.pretrain +exp=small" in done.stdout
    assert "rows_per_step" in done.stdout


def test_a_separator_is_given_as_its_yaml_says() -> None:
    text = (conf_folder() / "task" / "multilabel_csv.yaml").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if "task.separator=" in line)
    word = shlex.split(line.lstrip("# "))[0]
    check_command_line([word], FinetuneConfig)


def test_flags_may_stand_between_settings() -> None:
    """Hydra's own parser answers with its usage."""
    words = _as_hydra_takes(["+exp=small", "-m", "seed=1,2", "--cfg", "job", "steps=3"], PretrainConfig)
    assert words == ["-m", "--cfg", "job", "+exp=small", "seed=1,2", "steps=3"]


def test_a_modifier_has_the_last_word_wherever_it_stands() -> None:
    """Of two YAMLs the later counts, and a recipe behind a modifier would make a full run of it."""
    words = _as_hydra_takes(["+debug=one_step", "+exp=small", "seed=3"], PretrainConfig)
    cfg = composed(*words)
    assert (cfg.name, cfg.steps, cfg.seed) == ("debug_one_step", 1, 3)


@pytest.mark.parametrize(
    "words", [["+debug=one_step", "--cfg", "job", "seed=3"], ["seed=3", "+debug=one_step", "--cfg", "job"]]
)
def test_options_may_stand_anywhere(words: list[str]) -> None:
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "name: debug_one_step" in done.stdout and "seed: 3" in done.stdout
