"""`rebox`: new boxes for a whole run from its maps."""

from cluster.rebox.config import ReboxConfig
from cluster.rebox.driver import rebox
from jobs.command import Outcome, outcome_of
from jobs.findings import findings_document, print_findings
from jobs.flags import BOX_RECIPES, parse, shown_line
from jobs.interrupted import interrupted_run
from jobs.paths import refuse_relative


def run(arguments: list[str]) -> Outcome:
    """Box the maps; how many images are bad was `label`'s to judge."""
    config = parse(ReboxConfig, arguments, "rebox", BOX_RECIPES)
    refuse_relative({"the run": config.run, "--out": config.out})
    try:
        census = rebox(config, shown_line("rebox", arguments))
    except KeyboardInterrupt:
        return interrupted_run(config.out, config.options)
    print_findings(config.out, census)
    return outcome_of(census.totals, config.out, document={"out": config.out, **findings_document(census)})
