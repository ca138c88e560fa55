"""`calibrate`: box settings and probabilities from a labelled sample."""

from collections.abc import Iterator
from dataclasses import asdict

from cluster.calibrate.config import CalibrateConfig
from cluster.calibrate.driver import calibrate
from cluster.runs.calibration import CalibrationFile, Figure, HeldOut
from jobs.command import Outcome, print_lines
from jobs.flags import parse
from jobs.paths import refuse_relative, refuse_unwritable_file


def run(arguments: list[str]) -> Outcome:
    """Write the calibration, and print what it is worth on images held out."""
    config = parse(CalibrateConfig, arguments, "calibrate")
    refuse_relative({"the run": config.run, "--truth": config.truth.truth or "/", "--out": config.out})
    refuse_unwritable_file(config.out, "--out")
    file = calibrate(config)
    num_images = file.sample.fitted + file.sample.held_out
    print_lines([f"{config.out}: {_settings(file)}"])
    if file.held_out:
        print_lines(_lines(file.held_out, file.sample.held_out))
    return Outcome(images=num_images, ok=num_images, out=config.out, document=asdict(file))


def _settings(file: CalibrationFile) -> str:
    own = f", {len(file.calibration.class_thresholds)} classes with thresholds of their own"
    return (
        f"--normalise {file.maps.normalise} --threshold {file.boxes.threshold[0]:g} --components "
        f"{file.boxes.components}{own if file.sample.per_class else ''}; fitted to {file.sample.fitted} images"
    )


def _lines(held_out: HeldOut, num_images: int) -> Iterator[str]:
    yield f"on {num_images} images held out, GT-known Loc at IoU .5 in percent, 95 % bootstrap intervals:"
    for name, figure in held_out.figures.items():
        share, gain = figure.gt_known_loc, figure.gain
        better = f"   calibrated is {gain.value:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})" if gain else ""
        yield f"  {name:10} {_recipe(figure):22} {share.value:5.1f} ({share.low:.1f} to {share.high:.1f}){better}"
    yield f"probability: expected calibration error {held_out.calibration_error:.3f}"
    yield "  probability   boxes   mean  precision      kept at or above its beginning: precision, images"
    for entry, kept in zip(held_out.reliability, held_out.coverage, strict=True):
        yield (
            f"  {entry.low:.1f} to {entry.high:.1f}   {entry.boxes:7} {_shown(entry.probability):>6} "
            f"{_shown(entry.precision):>10} {_shown(kept.precision):>39} {_shown(kept.images):>7}"
        )


def _recipe(figure: Figure) -> str:
    order = "blog " if figure.maps.recipe == "blog" else ""
    return f"{order}{figure.maps.normalise} {figure.boxes.threshold[0]:g} {figure.boxes.components}"


def _shown(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
