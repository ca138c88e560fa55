"""A run whose maps are those of wsolevaluation's reference answers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cam_ops.tables import heatmaps_schema, with_metadata
from tests.support.command import Command


def reference_run(data: Path, folder: Path) -> Path:
    """Label 500 blank pictures of the real sizes, put the reference's maps in place of theirs, its truth in `truth`."""
    reference = data / "wsol_reference"
    sizes = [line.split(",") for line in (reference / "image_sizes.txt").read_text().splitlines()]
    for path, width, height in sizes:
        picture = (folder / "pictures" / path).with_suffix(".png")
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (int(width), int(height))).save(picture, compress_level=1)
    shutil.copytree(reference, folder / "truth")
    (folder / "truth" / "class_labels.txt").write_text("\n".join(f"{path},0" for path, *_ in sizes))
    (folder / "names.txt").write_text("discs\nrings\n")
    words = ["--model", "tests.support.networks:two_channels", "--mean", 0, 0, 0, "--std", 1, 1, 1, "--image-size", 32]
    words += ["--classes", "topk:2", "--class-names", folder / "names.txt", "--precision", "fp32"]
    out = folder / "run"
    assert Command("label", "--images", folder / "pictures", "--out", out, "--executor", "inline", *words).code == 0
    arrays = np.load(reference / "cams.npz")
    _replace_maps(out, dict(zip(arrays["image_ids"].tolist(), arrays["cams_NHW"], strict=True)))
    return out


def _replace_maps(out: Path, raw_of: dict[str, np.ndarray]) -> None:
    """Put other maps, 7x7, in the place of a run's."""
    document = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**document, "grid": [7, 7]}))
    by_stem = {str(Path(name).with_suffix("")): raw_hw for name, raw_hw in raw_of.items()}
    for path in (out / "heatmaps").glob("*.parquet"):
        table = pq.read_table(path)
        raw = np.stack([by_stem[str(Path(name).with_suffix(""))] for name in table["image_id"].to_pylist()])
        columns = {name: table[name] for name in table.column_names}
        columns["heatmap"] = pa.FixedShapeTensorArray.from_numpy_ndarray(raw)
        described = with_metadata(heatmaps_schema((7, 7)), json.loads(table.schema.metadata[b"camray"]))
        pq.write_table(pa.table(columns, schema=described), path)
