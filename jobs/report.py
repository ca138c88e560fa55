"""`report`: one page that shows a run."""

from cluster.report.config import ReportConfig
from cluster.report.driver import report
from jobs.command import Outcome, outcome_of, print_lines
from jobs.findings import findings_document
from jobs.flags import parse
from jobs.paths import refuse_relative


def run(arguments: list[str]) -> Outcome:
    """Write the page and say where it is."""
    config = parse(ReportConfig, arguments, "report")
    paths = {"the run": config.run, "--out": config.out, "--against": config.against}
    refuse_relative({flag: path for flag, path in paths.items() if path})
    done = report(config)
    size = f"{done.num_shown} image{'' if done.num_shown == 1 else 's'}, {done.num_bytes / 1e6:.1f} MB"
    print_lines([*([done.part] if done.part else []), size, done.where])
    shown = {"part": done.part, "bytes": done.num_bytes, "images_shown": done.num_shown, "galleries": done.galleries}
    document = {"out": done.where, **shown, **findings_document(done.census)}
    return outcome_of(done.census.totals, done.where, document=document, part=done.part)
