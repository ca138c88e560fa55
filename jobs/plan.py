"""`plan`: what `label` would do, and what it would cost."""

from dataclasses import replace

from cam_ops.errors import RefusedError
from cluster.plan.config import PlanConfig
from cluster.plan.driver import plan
from cluster.plan.lines import lines_of
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.label import placed


def run(arguments: list[str]) -> Outcome:
    """Print what is foretold; exit code 4 where `label` would refuse what --out holds."""
    config = parse(PlanConfig, arguments, "plan")
    config = replace(config, label=placed(config.label))
    document = plan(config)
    if not config.label.json:
        print_lines(lines_of(document))
    refusal = document["out"]["refusal"]
    return Outcome(
        status=RefusedError.status if refusal else "done",
        exit_code=RefusedError.exit_code if refusal else 0,
        out=config.label.out,
        error=refusal,
        document=document,
    )
