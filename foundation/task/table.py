"""What a study says, for the terminal."""

from foundation.task.interval import RESAMPLES, Interval
from foundation.task.protocol import ArmResult, StudyResult


def study_table(study: StudyResult) -> str:
    """Every arm with its mean, spread and seeds; the difference with its interval; where the results lie."""
    first = study.arms[0].summary
    width = max(len(arm.name) for arm in study.arms)
    lines = [
        "",
        f"{first['task']}: {first['metric']} on {first['rows']['dev']:,} items, "
        f"after {first['rows']['train']:,} training rows; a constant answer has {first['baseline']:.3f}",
        f"  {'arm':<{width}}  mean ± sd       median  max     collapsed  seeds",
        *(_arm_line(arm, width) for arm in study.arms),
    ]
    if study.difference is not None:
        lines.append(_difference_line(study.difference, study.arms))
    lines += [f"  {arm.name:<{width}}  {arm.folder}" for arm in study.arms]
    return "\n".join(lines)


def _arm_line(arm: ArmResult, width: int) -> str:
    summary = arm.summary
    spread = "       " if summary["std"] is None else f"± {summary['std']:.3f}"
    values = " ".join(f"{seed['value']:.3f}{'!' if seed['collapsed'] else ''}" for seed in summary["seeds"])
    collapsed = f"{summary['collapsed']} of {len(summary['seeds'])}"
    return (
        f"  {arm.name:<{width}}  {summary['mean']:.3f} {spread}   {summary['median']:.3f}   {summary['max']:.3f}   "
        f"{collapsed:<9}  {values}"
    )


def _difference_line(difference: Interval, arms: list[ArmResult]) -> str:
    return (
        f"  {arms[0].name} − {arms[1].name}: {difference.difference:+.3f}, 95 % interval "
        f"[{difference.low:+.3f}, {difference.high:+.3f}] ({RESAMPLES:,} resamples of items, paired, and of seeds; "
        "about these foundations, not about how they are made)"
    )
