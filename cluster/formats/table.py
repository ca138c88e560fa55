"""Tables of boxes, CSV or Parquet: a box a row, pixels whose ends are outside, or as `table-inclusive` inside.

Columns are found by the words that people have for them, see `cam_ops.words`; the signs between cells are sniffed.
Written, it is a CSV as RFC 4180 has it, in UTF-8, whose lines end in a line feed.
"""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
import pyarrow.parquet as pq

from cam_ops.arrays import F64
from cam_ops.outside import check_columns, size_of_file
from cam_ops.tables import CORNERS
from cam_ops.words import cells_of, column_of, delimiter_of, folded
from cluster.formats.entries import ENTRIES, MAX_SIDE, NUM_SHOWN, ROWS_PER_BATCH, VOC_CORNERS, number_of
from cluster.formats.exported import SCORE_DIGITS, ExportFormat, Part, Picture, Whole, document_name
from cluster.formats.files import bounded_lines, is_file, open_text, reading
from cluster.formats.format import Format
from cluster.process.console import say
from cluster.storage.packed import check_unpacked
from cluster.storage.parquet import check_rows_per_byte, open_by_dictionary, plain, stream

TEXT_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
CSV_BLOCK_BYTES = 4 * 2**20  # and the longest row

IMAGE = (
    *("image_id", "image", "imageid", "filename", "file_name", "image_name", "image_path", "filepath", "file_path"),
    *("path", "file", "img", "img_path"),
)
CORNER_SETS = (
    CORNERS,
    VOC_CORNERS,
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
CLASS = ("class", "class_name", "category", "category_name", "class_id", "label", "label_name", "labelname")
SIZES = (("image_width", "image_height"), ("img_width", "img_height"), ("width", "height"))
CROWD = ("iscrowd", "is_crowd", "crowd", "isgroupof", "is_group_of")
OTHER_BOXES = (("x", "y", "w", "h"), ("x", "y", "width", "height"), ("bbox",), ("cx", "cy", "w", "h"))
MISSING = ("", "NA", "N/A", "NULL", "null", "None", "none", "NaN", "nan")  # numbers that are none
KINDS = {"width": pa.float64(), "height": pa.float64(), "crowd": pa.string()}  # where it is not that of ENTRIES
CROWDS = {**dict.fromkeys(("", "0", "-1", "false"), False), **dict.fromkeys(("1", "true"), True)}  # -1: not known
FEW = 0.05  # of rows that may be slips
UNIT_PX = 1.0  # by which a box's own size may differ from its corners: ends inside, or rounded


def _read(path: str) -> Iterator[pa.RecordBatch]:
    """Read a CSV or Parquet file, or all of a folder, a box a row; batches of schema ENTRIES.

    Columns are one of `IMAGE`, one of the `CORNER_SETS`, and as the author likes one of `CLASS`, of `SIZES`, of
    `CROWD`; of several for the class the first named here is taken. A row without corners names an image without boxes.
    """
    for number, file in enumerate(_files(path)):
        with reading(file, "a table of boxes"):
            found = header_of(file)
            if file.lower().endswith(TEXT_SUFFIXES):
                check_unpacked(file)
            columns = _columns(found)
            if _are_sizes_of_boxes(file, columns):
                columns = {ours: name for ours, name in columns.items() if ours not in ("width", "height")}
            if number == 0:
                _say_left_out(file, [name for name in found if name not in columns.values()])
            for batch in _batches(file, columns):
                yield _entries_of(batch, columns)


def _files(path: str) -> list[str]:
    """Return the files of a table: the path itself, or those in the folder."""
    if not os.path.isdir(path):
        return [path]
    names = sorted(name for name in os.listdir(path) if name.lower().endswith(TABLE_SUFFIXES))
    return [os.path.join(path, name) for name in names if not name.startswith(".")]


def _say_left_out(file: str, names: list[str]) -> None:
    if names:
        shown = ", ".join(name.strip() or "''" for name in names[:NUM_SHOWN])[:200] + (
            ", ..." if len(names) > NUM_SHOWN else ""
        )
        say(f"truth: columns of {os.path.basename(file)} that are left out: {shown}")


def delimiter_in(path: str) -> str:
    """Return the sign between the cells of a text file. Raises what `reading` catches."""
    return delimiter_of(_first_line(path))


def header_of(path: str) -> list[str]:
    """Return the names of a table's columns. Raises what `reading` catches."""
    num_bytes = size_of_file(path)
    if path.lower().endswith(".parquet"):
        footer = pq.read_metadata(path)
        check_columns(footer.num_columns)
        check_rows_per_byte(footer, num_bytes)
        return list(footer.schema.to_arrow_schema().names)
    line = _first_line(path)
    return cells_of(line, delimiter_of(line))


def _first_line(path: str) -> str:
    with open_text(path) as file:
        return next((line.rstrip("\r\n") for line in bounded_lines(file) if line.strip()), "")


def _columns(found: Sequence[str]) -> dict[str, str]:
    """Map the columns of ENTRIES to the table's own. Raises ValueError where one is missing, or may be either."""
    images = [column for name in IMAGE if (column := column_of(found, (name,)))]
    corners = [of_set for names in CORNER_SETS if (of_set := _all_of(found, names))]
    if other := next((of_set for names in OTHER_BOXES if not corners and (of_set := _all_of(found, names))), None):
        raise ValueError(f"of {', '.join(other)} it is not known where the box begins; give {', '.join(VOC_CORNERS)}")
    if not images or not corners:
        raise ValueError(
            f"expected a column {' or '.join(IMAGE[:2])}, filename, ... and the columns {', '.join(CORNERS)} (or "
            f"{', '.join(VOC_CORNERS)}), found {', '.join(found[:NUM_SHOWN])[:200]}"
            + ("; its first line must name them" if any(number_of(name) is not None for name in found) else "")
        )
    for what, several in (("image", images), ("box", [", ".join(of_set) for of_set in corners])):
        if len(several) > 1:
            raise ValueError(f"the {what} may be {' or '.join(several)}; leave one of them out")
    columns = {"image": images[0], **dict(zip(CORNERS, corners[0], strict=True))}
    words = [column for name in CLASS if (column := column_of(found, (name,)))]
    columns |= dict(zip(("word", "other_word"), dict.fromkeys(words), strict=False))
    if crowd := column_of(found, CROWD):
        columns["crowd"] = crowd
    if size := next((of_pair for pair in SIZES if (of_pair := _all_of(found, pair))), None):
        columns |= dict(zip(("width", "height"), size, strict=True))
    return columns


def _all_of(found: Sequence[str], names: Sequence[str]) -> list[str] | None:
    """Return the columns that bear these names, None where one of them is missing."""
    columns = [column for name in names if (column := column_of(found, (name,)))]
    return columns if len(columns) == len(names) else None


def _are_sizes_of_boxes(path: str, columns: dict[str, str]) -> bool:
    """Say whether a table's width and height are its boxes': of most rows, and for some could not be the picture's.

    Raises ValueError where they are of some rows alone.
    """
    num_rows = num_boxes = num_sure = 0
    names = (*CORNERS, "width", "height")
    if "width" not in columns or folded(columns["width"]) != "width":
        return False
    for batch in _batches(path, {name: columns[name] for name in names}):
        x0_N, y0_N, x1_N, y1_N, width_N, height_N = (_numbers(batch, columns[name]) for name in names)
        with np.errstate(invalid="ignore", over="ignore"):
            off_N = np.maximum(np.abs(x1_N - x0_N - width_N), np.abs(y1_N - y0_N - height_N))
        num_rows += int(np.isfinite(off_N).sum())
        num_boxes += int((off_N <= UNIT_PX).sum())
        num_sure += int(((np.maximum(x0_N, y0_N) > UNIT_PX) & (off_N <= UNIT_PX)).sum())
    if num_sure <= FEW * num_rows:
        return False
    said = f"{columns['width']} and {columns['height']} are the box's in {num_boxes} of {num_rows} rows"
    if num_boxes * 2 <= num_rows:
        raise ValueError(
            f"{said}, and cannot be in the others; call the picture's image_width and image_height, or leave them out"
        )
    if num_boxes < num_rows:
        say(f"truth: {said}: left out")
    return True


def _numbers(batch: pa.RecordBatch, name: str) -> F64:
    return np.asarray(batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def _batches(path: str, columns: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """Yield a table's own columns."""
    if path.lower().endswith(".parquet"):
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
        with open_by_dictionary(path, footer) as file:
            yield from plain(stream(file, ROWS_PER_BATCH, list(columns.values())), schema)
        return
    try:
        with _open_csv(path, columns) as batches:
            yield from batches
    except pa.ArrowInvalid as error:
        raise ValueError(_with_column(str(error), header_of(path))) from None


def _with_column(reason: str, names: Sequence[str]) -> str:
    """Name the column that pyarrow calls by its number; say what a comma in a number is."""
    if not (found := re.match(r"In CSV column #(\d+): (.*invalid value '(.*)')", reason)) or int(found[1]) >= len(
        names
    ):
        return reason
    is_decimal = re.fullmatch(r"\s*[+-]?\d+,\d+\s*", found[3])
    cure = "; write a point for the decimal comma" if is_decimal else ""
    return f"column {names[int(found[1])].strip()}: {found[2]}{cure}"


def _open_csv(path: str, columns: dict[str, str]) -> pc_csv.CSVStreamingReader:
    kinds = {name: KINDS.get(ours, ENTRIES.field(ours).type) for ours, name in columns.items()}
    return pc_csv.open_csv(
        path,
        read_options=pc_csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
        parse_options=pc_csv.ParseOptions(delimiter=delimiter_in(path), newlines_in_values=True),
        convert_options=pc_csv.ConvertOptions(
            include_columns=list(kinds), column_types=kinds, strings_can_be_null=False, null_values=list(MISSING)
        ),
    )


def _entries_of(batch: pa.RecordBatch, columns: dict[str, str]) -> pa.RecordBatch:
    """Cast a table's columns to those of ENTRIES. Raises ArrowException where they do not fit."""
    given = {"crowd": pa.repeat(False, len(batch))}
    for ours, name in columns.items():
        values, kind = batch[name], ENTRIES.field(ours).type
        if kind == pa.string():
            if ours == "other_word" and not pa.types.is_string(values.type):
                values = pa.nulls(len(batch), kind)  # a number: it names nothing
            if pa.types.is_floating(values.type):
                values = values.cast(pa.int64())  # as pandas writes numbers beside nulls
            values = values.cast(kind)
            values = pc.if_else(pc.equal(values, ""), None, values)
        elif ours == "crowd":
            values = _crowds(values, name)
        elif ours in ("width", "height"):
            continue
        values = values.cast(kind)
        given[ours] = pc.if_else(pc.is_nan(values), None, values) if ours in CORNERS else values
    if "other_word" in columns:  # a number and a name may be two classes
        is_two_N = pc.and_(_are_numbers(given["word"]), pc.invert(_are_numbers(given["other_word"])))
        given["other_word"] = pc.if_else(is_two_N, given["other_word"], None)
    if "width" in columns:
        sides_2N = np.stack([_numbers(batch, columns[name]) for name in ("width", "height")])
        fits_N = ((sides_2N >= 1) & (sides_2N <= MAX_SIDE) & (sides_2N == np.rint(sides_2N))).all(axis=0)
        for name, side_N in zip(("width", "height"), sides_2N, strict=True):
            given[name] = pa.array(np.where(fits_N, side_N, 0).astype(np.int32), mask=~fits_N)
    arrays = [given.get(field.name, pa.nulls(len(batch), field.type)) for field in ENTRIES]
    return pa.record_batch(arrays, schema=ENTRIES)


def _crowds(values: pa.Array, name: str) -> pa.Array:
    """Return which rows are crowds. Raises ValueError where a cell does not say it."""
    texts = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string()).fill_null("")))
    texts = pc.replace_substring_regex(texts, r"\.0*$", "").dictionary_encode()
    words = texts.dictionary.to_pylist()
    if strange := next((word for word in words if word not in CROWDS), None):
        raise ValueError(f"column {name.strip()}: expected 0 or 1, true or false, found {strange[:40]!r}")
    return pa.array([CROWDS[word] for word in words], pa.bool_()).take(texts.indices)


def _are_numbers(words: pa.Array) -> pa.Array:
    return pc.fill_null(pc.match_substring_regex(words, r"^\s*[+-]?\d+(\.0*)?\s*$"), False)


def _recognise(path: str) -> bool:
    if not os.path.isdir(path):
        return is_file(path, TABLE_SUFFIXES)
    with reading(path, "a folder"):
        return bool(_files(path))


TABLE = Format(
    name="table",
    frame="half-open",
    recognise=_recognise,
    read=lambda path, masks: _read(path),
)
TABLE_INCLUSIVE = Format(
    name="table-inclusive",  # it looks like the other, and must be asked for
    frame="inclusive",
    read=lambda path, masks: _read(path),
)
TABLE_FRACTIONS = Format(
    name="table-fractions",  # as this one must
    frame="fractions",
    read=lambda path, masks: _read(path),
)


DOCUMENT = "boxes.csv"
ROWS = "rows"
COLUMNS = ("filename", "width", "height", "class", *VOC_CORNERS, "score")
PROBABILITY = "probability"
CSV_END = "\r\n"  # Python quotes cells with the characters of a line's end alone


def csv_line(cells: Iterable[object]) -> bytes:
    """Return a line of a CSV, without its end."""
    text = StringIO()
    csv.writer(text, lineterminator=CSV_END).writerow(cells)
    return text.getvalue().removesuffix(CSV_END).encode()


def _write(pictures: Iterator[Picture], part: Part) -> None:
    columns = _columns_written(part)
    for picture in pictures:
        first = (picture.name, picture.width, picture.height)
        for box in picture.boxes:
            likely = () if box.probability is None else (f"{box.probability:.{SCORE_DIGITS}f}",)
            name = part.settings.classes.names[box.class_id]
            cells = (*first, name, *box.corners, f"{box.score:.{SCORE_DIGITS}f}", *likely)
            part.note(ROWS, picture.split, csv_line(cells))
        if not picture.boxes:
            part.note(ROWS, picture.split, csv_line((*first, *[""] * (len(columns) - len(first)))))


def _columns_written(place: Part | Whole) -> tuple[str, ...]:
    return (*COLUMNS, PROBABILITY) if place.settings.is_calibrated else COLUMNS


def _finish(whole: Whole) -> None:
    for split in whole.splits:
        with whole.open(document_name(DOCUMENT, split)) as file:
            file.write(csv_line(_columns_written(whole)) + b"\n")
            file.writelines(line + b"\n" for line in whole.notes(ROWS, split))


CSV_EXPORT = ExportFormat(
    name="csv",
    entries=(DOCUMENT, DOCUMENT.partition(".")[0]),
    write=_write,
    finish=_finish,
    lists_classes=False,
)
