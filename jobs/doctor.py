"""`doctor`: what would keep a run from working, and the cure."""

from collections import Counter
from dataclasses import asdict

from cluster.doctor.config import DoctorConfig
from cluster.doctor.driver import doctor
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.paths import refuse_relative


def run(arguments: list[str]) -> Outcome:
    """Print a line a check; exit code 6 if one fails."""
    config = parse(DoctorConfig, arguments, "doctor")
    for images in config.images:
        refuse_relative({"--images": images})
    if config.out:
        refuse_relative({"--out": config.out})
    findings = []
    for finding in doctor(config):
        findings.append(finding)
        if not config.json:
            where = f" on {finding.where}" if finding.where else ""
            cure = f"; {finding.cure}" if finding.cure else ""
            print_lines([f"{finding.verdict:4}  {finding.check}{where}: {finding.says}{cure}"])
    verdicts = Counter(finding.verdict for finding in findings)
    failed = [finding for finding in findings if finding.verdict == "fail"]
    return Outcome(
        status="failed" if failed else "done",
        exit_code=6 if failed else 0,
        error=f"{failed[0].check}: {failed[0].says}" if failed else None,
        document={"findings": [asdict(finding) for finding in findings], "verdicts": dict(verdicts)}
        if config.json
        else None,
    )
