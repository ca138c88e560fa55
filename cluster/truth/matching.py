"""Match a truth's images to a plan's, tens of millions of each: DuckDB joins them on disk.

A truth's image is the planned one with its very id. Else names are compared in one form (`plain_of`): `/` for `\\`, no
`./`, no blanks around it, one Unicode form. It is then the only one with its path; with its path but for a suffix; with
the last four, three or two parts of that, as leading folders differ; with these whatever the capitals; or with its
stem, the last part. Each time it must be the only one of the truth that is left, too, and what comes before must not
say another split, `train/1` is not `test_images/1`, or another of the folders that both have: `cats/1` is not `dogs/1`
where the run has cats. Others are reported, never guessed.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from cam_ops.errors import StorageError
from cam_ops.pictures.formats import FORMATS
from cluster.runs.directory import RunDir
from cluster.runs.plan import read_shard
from cluster.runs.reading import read_table
from cluster.runs.record import Run
from cluster.sources.splits import SPLITS
from cluster.truth.problems import NUM_EXAMPLES, Problem, shown_example

NUM_READERS = 8  # opening a file is waiting where OUT is on a network
SHARDS_AT_ONCE = 64
OBJECTS_AT_ONCE = 2**18
PLANNED = pa.schema(
    [
        ("image_id", pa.string()),
        *((name, pa.int32()) for name in ("shard", "row", "width", "height", "label")),
    ]
)


def planned_images(run_dir: RunDir, run: Run) -> Iterator[pa.RecordBatch]:
    """Yield all planned images in order, schema PLANNED; sizes are 0 where a shard is not committed."""
    committed = run_dir.shards("images")

    def images_of(shard: int) -> pa.Table:
        if shard in committed:
            rows = read_table(run_dir, run, "images", shard)
        else:
            rows = read_shard(run_dir, shard)
            zeros = pa.array(np.zeros(len(rows), np.int32))
            rows = rows.append_column("width", zeros).append_column("height", zeros)
        size = run.plan.size_of(shard)
        if not np.array_equal(rows["row"], np.arange(size)) or not np.all(np.equal(rows["shard"], shard)):
            raise StorageError(f"shard {shard} of {run_dir.root} is not as it was planned; see `verify`")
        return rows.select(PLANNED.names)

    with ThreadPoolExecutor(NUM_READERS) as pool:
        for first in range(0, run.plan.num_shards, SHARDS_AT_ONCE):
            shards = range(first, min(first + SHARDS_AT_ONCE, run.plan.num_shards))
            for images in pool.map(images_of, shards):
                yield from images.cast(PLANNED).to_batches()


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """What was matched; tables `images` and `found` of the database hold it."""

    num_images: int  # that the truth names
    num_boxes: int
    num_masks: int
    num_unusable: int
    matched_exact: int
    matched_stem: int
    problems: dict[str, Problem]


def match(database: duckdb.DuckDBPyConnection) -> Matching:
    """Match the table `entries` (ENTRIES) to the table `planned` (PLANNED).

    Makes `images`, one row per planned image: place (its number in the plan), the columns of PLANNED, truth_id,
    truth_width, truth_height (the first ones if it `has_sizes`), image_word, null where the truth says nothing; and
    `found`, the entries with a box or mask of matched images, by place and in the truth's order.
    """
    database.execute(MACROS + PLAIN + TRUTHS + FOLDERS + EXACT)
    database.executemany(SPLIT_WORDS, [(word, split) for word, splits in SPLITS.items() for split in splits])
    for key, num_parts in KEYS:
        if not _row(database, "SELECT count(*) FROM truths ANTI JOIN matches USING (id)")[0]:
            break
        database.execute(PAIRS.format(key=key, num_parts=num_parts))
        database.execute(APART, {"num_parts": num_parts})
        database.execute(REST.format(is_exact=num_parts > STEM))
    database.execute(MISNAMED)
    database.execute(IMAGES + FOUND)
    num_exact, num_all = _row(database, "SELECT count(*) FILTER (is_exact), count(*) FROM matches")
    num_boxes, num_masks = _row(
        database, "SELECT count(*) FILTER (has_box_of(x0, y0, x1, y1)), count(mask) FROM entries"
    )
    return Matching(
        num_images=_row(database, "SELECT count(*) FROM truths")[0],
        num_boxes=num_boxes,
        num_masks=num_masks,
        num_unusable=_row(database, "SELECT count(unusable) FROM entries")[0],
        matched_exact=num_exact,
        matched_stem=num_all - num_exact,
        problems={name: problem for name, query in UNMATCHED.items() if (problem := _problem(database, query)).count},
    )


SUFFIXES = (*(suffix for form in FORMATS for suffix in form.suffixes), "xml", "txt")
"""Of pictures, and of the files that annotate them."""
MACROS = rf"""
CREATE MACRO plain_of(id) AS
    nfc_normalize(regexp_replace(replace(trim(id), '\', '/'), '(^|/)(\.?/)+', '\1', 'g'));
CREATE MACRO path_of(id) AS regexp_replace(plain_of(id), '(?is)\.({"|".join(SUFFIXES)})$', '');
CREATE MACRO end_of(path, num) AS CASE WHEN len(string_split(path, '/')) >= num
    THEN array_to_string(string_split(path, '/')[-num:], '/') END;
CREATE MACRO folders_before(path, num) AS
    string_split(path, '/')[1:greatest(len(string_split(path, '/')) - num, 0)];
CREATE MACRO words_of(folder) AS
    regexp_split_to_array(lower(regexp_replace(folder, '(\p{{Ll}})(\p{{Lu}})', '\1 \2', 'g')), '[^\p{{L}}]+');
CREATE MACRO has_box_of(x0, y0, x1, y1) AS coalesce(x0, y0, x1, y1) IS NOT NULL;
"""
PLAIN = """
UPDATE entries SET image = plain_of(image)
WHERE image <> plain_of(image) AND image NOT IN (SELECT image_id FROM planned);
"""
TRUTHS = """
CREATE TABLE truths AS
SELECT image AS id, plain_of(image) AS plain, path_of(image) AS path, end_of(lower(path), 1) AS stem,
    arg_min(struct_pack(width, height), rowid) FILTER (width IS NOT NULL AND height IS NOT NULL) AS size,
    count(DISTINCT CASE WHEN width IS NOT NULL AND height IS NOT NULL THEN struct_pack(width, height) END) > 1
        AS has_sizes,
    CASE WHEN min(image_word) = max(image_word) THEN min(image_word) END AS image_word,
    min(image_word) <> max(image_word) AS has_several
FROM entries WHERE image <> '' GROUP BY image;
CREATE TABLE keyed AS
SELECT rowid AS place, image_id AS id, plain_of(image_id) AS plain, path_of(image_id) AS path,
    end_of(lower(path), 1) AS stem
FROM planned;
"""
FOLDERS = """
CREATE TABLE splits (word VARCHAR, split VARCHAR);
CREATE TABLE truth_folders AS SELECT DISTINCT lower(unnest(folders_before(path, 1))) AS folder FROM truths;
CREATE TABLE run_folders AS SELECT DISTINCT lower(unnest(folders_before(path, 1))) AS folder FROM keyed;
CREATE TABLE apart (place BIGINT, id VARCHAR);
"""
SPLIT_WORDS = "INSERT INTO splits VALUES ($1, $2)"
EXACT = """
CREATE TABLE matches AS
SELECT place, id, true AS is_exact FROM keyed JOIN truths USING (id);
"""
ENDS, STEM = (4, 3, 2), 1  # parts of a path
WHOLE = 99
PATHS = ("path", "lower(path)")
KEYS = (
    ("plain", WHOLE),
    *(key for path in PATHS for key in ((path, WHOLE), *((f"end_of({path}, {parts})", parts) for parts in ENDS))),
    *((f"end_of({path}, {STEM})", STEM) for path in PATHS),
)
"""What two ids have in common that are of one image, the surest first, and how many parts of their paths that is."""
PAIRS = """
CREATE OR REPLACE TEMP TABLE pairs AS
WITH rest AS (
    SELECT {key} AS shared, min(id) AS id, count(*) AS num FROM truths ANTI JOIN matches USING (id)
    WHERE shared IS NOT NULL GROUP BY shared
), candidates AS (
    SELECT shared, min(place) AS place, min(plain) AS plain, count(*) AS num
    FROM (SELECT place, plain, {key} AS shared FROM keyed) SEMI JOIN rest USING (shared) GROUP BY shared
)
SELECT place, rest.id, folders_before(plain_of(rest.id), {num_parts}) AS truth_folders,
    folders_before(candidates.plain, {num_parts}) AS run_folders
FROM rest JOIN candidates USING (shared) ANTI JOIN matches USING (place)
WHERE rest.num = 1 AND candidates.num = 1;
"""
APART = """
INSERT INTO apart
WITH named AS (
    SELECT place, id, true AS of_truth, unnest(truth_folders) AS folder FROM pairs
    UNION ALL SELECT place, id, false, unnest(run_folders) FROM pairs
), said AS (
    SELECT DISTINCT place, id, of_truth, split
    FROM (SELECT * EXCLUDE (folder), unnest(words_of(folder)) AS word FROM named) JOIN splits USING (word)
), one_sided AS (
    SELECT place, id, lower(folder) AS folder, bool_and(of_truth) AS of_truth, bool_and(NOT of_truth) AS of_run
    FROM named JOIN pairs USING (place, id)
    WHERE len(truth_folders) > 0 AND ($num_parts = 1 OR len(run_folders) > 0)
    GROUP BY ALL
)
SELECT place, id FROM said GROUP BY place, id
HAVING count(DISTINCT of_truth) = 2 AND count(DISTINCT split) = count(*)
UNION SELECT place, id FROM one_sided SEMI JOIN run_folders USING (folder) WHERE of_truth
UNION SELECT place, id FROM one_sided SEMI JOIN truth_folders USING (folder) WHERE of_run;
"""
"""Pairs that are two pictures: a folder of the one says another split, or is one that the other side has elsewhere.

Where one path is the end of the other, the latter only begins further up."""
REST = """
INSERT INTO matches SELECT place, id, {is_exact} FROM pairs ANTI JOIN apart USING (place, id);
"""
MISNAMED = """
CREATE TABLE misnamed AS
SELECT DISTINCT id FROM matches JOIN truths USING (id) JOIN entries ON image = id
WHERE other_image IS NOT NULL AND end_of(lower(path_of(other_image)), 1) <> stem
    AND end_of(lower(path_of(other_image)), 1) IN (SELECT stem FROM keyed);
DELETE FROM matches WHERE id IN (SELECT id FROM misnamed);
"""
IMAGES = """
CREATE TABLE images AS
SELECT planned.rowid AS place, planned.*, truths.id AS truth_id, size.width AS truth_width,
    size.height AS truth_height, coalesce(has_sizes, false) AS has_sizes, image_word
FROM planned LEFT JOIN matches ON planned.rowid = place LEFT JOIN truths USING (id)
ORDER BY planned.rowid;
"""
FOUND = """
CREATE TABLE found AS
SELECT place, entries.rowid AS number, entries.* EXCLUDE (image, other_image, image_word, width, height),
    has_box_of(x0, y0, x1, y1) AS has_box
FROM entries JOIN matches ON image = id
WHERE has_box OR mask IS NOT NULL OR unusable IS NOT NULL
ORDER BY place, number
"""
PARTS = {
    "images": "SELECT * FROM images WHERE place >= $1 AND place < $2 ORDER BY place",
    "found": "SELECT * FROM found WHERE place >= $1 AND place < $2 ORDER BY place, number",
}
COUNTS = "SELECT place, count(*) FROM found WHERE place >= $1 AND place < $2 GROUP BY place ORDER BY place"
UNMATCHED = {
    "unmatched_truth": "SELECT id FROM truths ANTI JOIN matches USING (id) ANTI JOIN keyed USING (stem)",
    "other_filename": "SELECT id FROM misnamed",
    "other_folder": "SELECT id FROM truths ANTI JOIN matches USING (id) ANTI JOIN misnamed USING (id) "
    "SEMI JOIN apart USING (id)",
    "ambiguous_stem": "SELECT id FROM truths ANTI JOIN matches USING (id) ANTI JOIN misnamed USING (id) "
    "ANTI JOIN apart USING (id) SEMI JOIN keyed USING (stem)",
    "images_without_truth": "SELECT image_id AS id FROM images WHERE truth_id IS NULL",
    "several_classes": "SELECT id FROM truths SEMI JOIN matches USING (id) WHERE has_several",
    "entries_without_image": "SELECT concat_ws(' ', unusable, x0, y0, x1, y1, word) AS id FROM entries "
    "WHERE NOT image <> '' OR image IS NULL",
}


def _row(database: duckdb.DuckDBPyConnection, query: str) -> tuple[int, ...]:
    (row,) = database.execute(query).fetchall()  # a result that is not read to its end blocks the database
    return row


def _problem(database: duckdb.DuckDBPyConnection, query: str) -> Problem:
    ids = database.sql(query)
    count = ids.aggregate("count(*)").fetchall()[0][0]
    examples = ids.order("id").limit(NUM_EXAMPLES).fetchall() if count else []
    return Problem(count=count, examples=tuple(shown_example(text) for (text,) in examples))


def rows_between(database: duckdb.DuckDBPyConnection, table: str, first: int, end: int) -> pa.Table:
    """Return the rows of `images` or `found` whose place is from `first` on and before `end`, in order."""
    return database.sql(PARTS[table], params=[first, end]).to_arrow_table()


def stretches(database: duckdb.DuckDBPyConnection, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut places from `first` on and before `end` into ranges of few objects each, or of one image."""
    counts = database.execute(COUNTS, [first, end]).fetchall()
    start, num_objects = first, 0
    for place, count in counts:
        if place > start and num_objects + count > OBJECTS_AT_ONCE:
            yield start, place
            start, num_objects = place, 0
        num_objects += count
    yield start, end
