"""Lines to copy from a report: what one does next with the run."""

import shlex

from cluster.report.records import Command
from cluster.runs.directory import RunDir
from cluster.runs.record import Run, line_again


def commands_of(run_dir: RunDir, run: Run, *, is_whole: bool, truth: str | None) -> tuple[Command, ...]:
    """Return the lines; `truth` is what the run was audited against."""
    root = shlex.quote(run_dir.root)
    rebox, coco = (shlex.quote(f"{run_dir.root}-{name}") for name in ("rebox", "coco"))
    setting = "--threshold {threshold} --normalise {normalise} --components {components}"
    if run.maps_from:  # what is not given is as in that run
        setting += f"{{min_area}} --recipe {run.request.maps.recipe}"

    def line(command: str, flags: str = "") -> str:
        return f"python -m jobs {command} {root}{flags}"

    commands = []
    if not is_whole and (resume := line_again(run_dir, run)):
        commands.append(Command(name="resume", does="Do what is missing of the run.", line=resume))
    commands += [
        Command(name="verify", does="Prove that the run is whole.", line=line("verify")),
        Command(
            name="rebox",
            does="Make the boxes anew as the bar of the pictures has them; pictures and network are not needed.",
            line=line("rebox", f" --out {rebox} {setting}"),
        ),
        Command(
            name="audit",
            does="Measure the boxes against true ones.",
            line=line("audit", f" --truth {shlex.quote(truth) if truth else 'ANNOTATIONS'}"),
        ),
        Command(
            name="export",
            does="Carry the boxes into another tool: coco, yolo, voc, label-studio, ...",
            line=line("export", f" --to coco --out {coco}"),
        ),
        Command(name="show", does="Draw images as a picture.", line=line("show", " --random --grid 5x4")),
    ]
    return tuple(commands)


def typed(run: Run) -> str | None:
    """Return the command that began a run, as one types it; None where that is not known."""
    return f"python -m jobs {shlex.join(run.command_line)}" if run.command_line else None
