"""Lines to copy from a report: what one does next with the run."""

import shlex

from cluster.report.records import Command
from cluster.runs.directory import RunDir
from cluster.runs.record import Run, line_again


def commands_of(run_dir: RunDir, run: Run, *, is_whole: bool, is_audited: bool) -> tuple[Command, ...]:
    """Return the lines; that for an audit only where there is none, which it would replace."""
    root = shlex.quote(run_dir.root)
    rebox, coco = (shlex.quote(f"{run_dir.root}-{name}") for name in ("rebox", "coco"))
    setting = "--threshold {threshold} --normalise {normalise} --components {components}"
    if run.maps_from:  # what is not given is as in that run
        setting += f"{{min_area}} --recipe {run.request.maps.recipe}"

    names = dict.fromkeys(name for store, name, _ in run_dir.options.values if run_dir.root.startswith(f"{store}://"))
    storage = f" --storage-options {' '.join(f'{name}=...' for name in names)}" if names else ""

    def line(command: str, flags: str = "") -> str:
        return f"python -m jobs {command} {root}{storage}{flags}"

    audit = Command(
        name="audit", does="Measure the boxes against true ones.", line=line("audit", " --truth ANNOTATIONS")
    )
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
        *([] if is_audited else [audit]),
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
