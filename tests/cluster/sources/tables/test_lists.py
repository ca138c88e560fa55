"""Lists in text: what is read of CSV, JSON lines and plain lines, packed or not, and what is refused, and how."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cam_ops.errors import CamrayError, StorageError, UsageError
from cluster.sources.kinds import open_listing, source_address
from cluster.sources.source import EVERYTHING, Asked


def rows_of(address: object, asked: Asked = EVERYTHING) -> list[dict[str, Any]]:
    """Return image_id, label and further columns of each image that a source lists."""
    with open_listing(source_address(str(address)), asked) as listing:
        table = pa.Table.from_batches(list(listing.batches()))
        assert (len(table), "label" in table.column_names) == (listing.num_images, listing.has_labels)
    return table.drop_columns(["uri", "offset", "size"]).to_pylist()


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """Write a list, packed where its name says so."""
    content = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def refusal(address: object, asked: Asked = EVERYTHING, error: type[CamrayError] = UsageError) -> str:
    with pytest.raises(error) as caught:
        rows_of(address, asked)
    return str(caught.value)


TWO = [{"image_id": "a.jpg", "label": "cat"}, {"image_id": "b;c.jpg", "label": "dog"}]
CSVS = {
    "comma": "uri,label\na.jpg,cat\nb;c.jpg,dog\n",
    "semicolon": 'uri;label\na.jpg;cat\n"b;c.jpg";dog\n',
    "tab": "uri\tlabel\na.jpg\tcat\nb;c.jpg\tdog\n",
    "blanks around names": ' uri, label\na.jpg,cat\n"b;c.jpg",dog\n',
    "capitals": "URI,Label\na.jpg,cat\nb;c.jpg,dog\n",
    "a mark first, CR LF": "\ufeffuri,label\r\na.jpg,cat\r\nb;c.jpg,dog\r\n",
    "other columns": "split,label,uri,note\ntrain,cat,a.jpg,1\ntest,dog,b;c.jpg,2\n",
    "CR alone": "uri,label\ra.jpg,cat\rb;c.jpg,dog\r",
    "blank lines": "\n\nuri,label\n\na.jpg,cat\nb;c.jpg,dog\n\n",
    "Hugging Face's metadata.csv": "file_name,label\na.jpg,cat\nb;c.jpg,dog\n",
}


@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV", "list.tsv", "list.csv.gz", "list.tsv.gz"])
@pytest.mark.parametrize("content", CSVS.values(), ids=CSVS)
def test_a_csv_is_cut_by_the_sign_in_its_first_line_whatever_its_suffix(
    tmp_path: Path, name: str, content: str
) -> None:
    assert rows_of(written(tmp_path, name, content)) == TWO


def test_a_tsv_of_one_column_keeps_its_commas(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path, "a.tsv", "uri\na,b.jpg\n")) == [{"image_id": "a,b.jpg"}]


JSON_LINES = {
    "uri": '{"uri": "a.jpg", "label": "cat"}\n{"label": "dog", "uri": "b;c.jpg"}\n',
    "file_name": '{"file_name": "a.jpg", "label": "cat", "n": {"x": []}}\r\n\n{"file_name": "b;c.jpg", "label": "dog"}',
    "names": '{"Label": "cat", "URI": "a.jpg"}\n{"URI": "b;c.jpg", "Label": "dog"}\n',
    "lists": '{"uri": "a.jpg", "label": ["cat"]}\n{"uri": "b;c.jpg", "label": ["dog", null]}\n',
    "a mark first": '\ufeff{"uri": "a.jpg", "label": "cat"}\n{"uri": "b;c.jpg", "label": "dog"}\n',
}


@pytest.mark.parametrize("name", ["metadata.jsonl", "list.ndjson", "list.jsonl.gz", "list.ndjson.gz"])
@pytest.mark.parametrize("content", JSON_LINES.values(), ids=JSON_LINES)
def test_json_lines_name_a_picture_each(tmp_path: Path, name: str, content: str) -> None:
    assert rows_of(written(tmp_path, name, content)) == TWO


def test_what_one_json_line_lacks_another_may_have(tmp_path: Path) -> None:
    lines = '{"uri": "a"}\n{"uri": "b", "label": 3}\n{"uri": "c", "label": null}\n{"uri": "d", "label": 3.0}\n'
    found = rows_of(written(tmp_path, "a.jsonl", lines + '{"uri": "e", "label": ["x", 7]}'))
    assert [row["label"] for row in found] == [None, "3", None, "3.0", "x|7"]


@pytest.mark.parametrize("name", ["list.txt", "list.txt.gz"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_plain_list_has_a_path_or_uri_a_line(tmp_path: Path, name: str, end: str) -> None:
    lines = ["\ufeffb.jpg", " a.jpg ", "", "s3://bucket/k e,y.jpg", "/x/#c.jpg", "file:///x/d%20e.jpg"]
    with open_listing(str(written(tmp_path, name, end.join(lines) + end))) as listing:
        found = pa.Table.from_batches(list(listing.batches())).to_pylist()
    assert [(row["image_id"], row["uri"]) for row in found] == [
        (" a.jpg ", f"{tmp_path}/ a.jpg "),
        ("/x/#c.jpg", "/x/#c.jpg"),
        ("b.jpg", f"{tmp_path}/b.jpg"),
        ("file:///x/d%20e.jpg", "file:///x/d%20e.jpg"),
        ("s3://bucket/k e,y.jpg", "s3://bucket/k e,y.jpg"),
    ]


def test_what_is_packed_is_told_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    plain, packed = b"uri\na.jpg\n", gzip.compress(b"uri\na.jpg\n")
    for name, content in (("a.csv", packed), ("a.csv.gz", plain), ("b.csv.gz", packed + gzip.compress(b"b.jpg\n"))):
        (tmp_path / name).write_bytes(content)
    assert [row["image_id"] for row in rows_of(tmp_path / "a.csv")] == ["a.jpg"]
    assert [row["image_id"] for row in rows_of(tmp_path / "a.csv.gz")] == ["a.jpg"]
    assert [row["image_id"] for row in rows_of(tmp_path / "b.csv.gz")] == ["a.jpg", "b.jpg"]  # two members


def test_a_packed_list_that_was_cut_or_changed_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b"uri\n" + b"".join(b"%d.jpg\n" % i for i in range(50_000)), mtime=0)
    changed = bytearray(packed)
    changed[-6] ^= 1  # of the checksum
    for name in ("a.csv", "a.txt", "a.jsonl"):
        for content in (packed[:-1], packed[: len(packed) // 2], bytes(changed), packed + b"more"):
            (tmp_path / name).write_bytes(content)
            says = refusal(tmp_path / name)
            assert "cannot unpack" in says or "JSON object in line 1" in says, says
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(gzip.compress(b"uri\na.jpg\n")))
    assert "was packed twice" in refusal(tmp_path / "b.csv.gz")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "start", "rest", "num_pieces", "says"),
    [
        ("a.txt.gz", b"a.jpg\n", b"\0", 3, "line 2 of .* has more than 4194304 bytes"),
        ("a.jsonl.gz", b'{"uri": "', b"x", 3, "line 1 of .* has more than 4194304 bytes"),
        ("a.csv.gz", b"uri\n", b"x", 3, "cannot read"),
        ("a.csv.gz", b"uri", b"x", 3, "line 1 of .* has more than"),
        ("a.csv.gz", b"uri\n", b"x", 64, r"cannot unpack .* bytes unpack to more than \d+"),
    ],
)
def test_a_small_file_that_unpacks_to_gigabytes_takes_no_memory(
    tmp_path: Path, name: str, start: bytes, rest: bytes, num_pieces: int, says: str
) -> None:
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(num_pieces):
            file.write(rest * 2**24)
    before = pa.default_memory_pool().max_memory()
    tracemalloc.start()
    with pytest.raises(UsageError, match=says):
        rows_of(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert pa.default_memory_pool().max_memory() - before < 256 * 2**20


REFUSED = [
    ("a.csv", "path,class\na.jpg,cat\n", "found 'path', 'class'; say which one it is: --columns uri=path"),
    ("a.csv", "a,b\n1,2\n", "expected one column uri in"),
    ("a.csv", "uri;a,label\nx;y,z\n", "cut by ',' and ';' alike"),
    ("a.csv", "uri,Label,label ,LABEL\na,1,2,3\n", "several columns label: 'Label', 'label ', 'LABEL'"),
    ("a.csv", "uri,label\nC:\\pictures\\a.jpg,1\n", "'C:\\\\\\\\pictures\\\\\\\\a.jpg', a path of another machine"),
    ("a.csv", "uri\n\\\\server\\share\\a.jpg\n", "a path of another machine"),
    ("a.csv", "uri\nD:/a.jpg\n", "'D:/a.jpg', a path of another machine"),
    ("a.jsonl", '{"path": "a.jpg"}\n', "found 'path'; say which one it is: --columns uri=path"),
    ("a.jsonl", '{"uri": "a.jpg"}\n{"uri": \n', "expected a JSON object in line 2 of"),
    ("a.jsonl", '[{"uri": "a.jpg"},\n', "expected a JSON object in line 1 of"),
    ("a.jsonl", '["a.jpg"]\n', "expected a JSON object in line 1 of"),
    ("a.jsonl", '{"uri": "a.jpg", "uri": "b.jpg"}\n', "an object has a name twice"),
    ("a.jsonl", '{"uri": ["a.jpg"]}\n', "line 1 of .*: expected a text or a number, it has"),
    ("a.jsonl", '{"uri": true}\n', "line 1 of .*: expected a text or a number, it has 'true'"),
    ("a.jsonl", '{"uri": "a"}\n{"uri": "\\ud800"}\n', "line 2 of .*surrogates not allowed"),
    ("a.jsonl", '{"uri": "a"}\n{"label": 1}\n', "expected a text in column uri for each row"),
    ("a.jsonl", "[" * 100_000, "expected a JSON object in line 1"),
    ("a.txt", "uri,label\na.jpg,1\n", "has the names of columns, 'uri,label'; call it .csv"),
    ("a.txt", "b" * 200_000, "is none of a CSV: field larger than field limit"),
    ("a.txt", "n01/a b.JPEG 0\nn02/b.JPEG 1\n", "a path and a label, make it a CSV with the first line uri,label"),
    ("a.txt", "a.jpg\rb.jpg\r", "line 1 of .* has CR alone as the end of lines"),
    ("a.csv", "uri\ns\u00e9b.jpg\n".encode("cp1252"), "in UTF-8, a cell of it is not; save it as UTF-8"),
    ("a.csv", "version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS .* `git lfs pull`"),
    ("a.txt", "a.jpg\nb.jpg\na.jpg\n", "'a.jpg' is there twice"),
    ("a.txt", b"a.jpg\n\xff.jpg\n", "line 2 of .* is not in UTF-8"),
    ("a.txt", "\ufeffa.jpg\n".encode("utf-16-le"), "is in UTF-16; save it as UTF-8"),
    ("a.tsv.gz", "\ufeffuri\n".encode("utf-16-be"), "is in UTF-16; save it as UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "says"), REFUSED)
def test_what_is_no_list_is_refused_with_its_line(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(UsageError, match=says):
        rows_of(path)


def test_an_empty_list_is_said_to_be_empty(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl", "b.csv", "a.txt.gz"):
        empty = written(tmp_path, name, "")
        assert "empty" in refusal(empty, error=StorageError) or "lists no image" in refusal(empty, error=StorageError)
    assert "lists no image" in refusal(written(tmp_path, "c.csv", "uri\n"), error=StorageError)


@pytest.mark.parametrize("name", ["x.csv.zip", "x.json", "x.xlsx", "x.pkl", "x.npz", "x.parquet.gz", "x.txt.zst"])
def test_what_is_almost_a_list_is_refused_with_the_cure(name: str) -> None:
    with pytest.raises(UsageError, match=f"--images .*{name}: "):
        source_address(f"/nowhere/{name}")


def test_columns_of_other_names_are_taken_as_asked(tmp_path: Path) -> None:
    table = "File Name,breed,id\na.jpg,cat,7\n"
    asked = Asked(columns={"uri": "file_name", "label": "Breed", "image_id": "id"})
    for path in (
        written(tmp_path, "a.csv", table),
        written(tmp_path, "a.jsonl", json.dumps({"File Name": "a.jpg", "breed": "cat", "id": 7})),
    ):
        assert rows_of(path, asked) == [{"image_id": "7", "label": "cat"}]
        says = refusal(path, Asked(columns={"label": "breeds", "uri": "File Name"}))
        assert "has the columns 'File Name', 'breed', 'id'; did you mean label=breed?" in says
    with open_listing(str(tmp_path / "a.csv")) as listing:  # `File Name` is Hugging Face's file_name
        assert (listing.has_labels, listing.label_hint) == (False, "--columns label=breed")
    assert "has no columns" in refusal(written(tmp_path, "a.txt", "a.jpg"), asked)


def test_backslashes_separate_folders_where_no_file_bears_the_very_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "it\\is.jpg").touch()
    uris = ["it\\is.jpg", "cat\\a.jpg", "cat\\sub\\b.jpg", "dog/sub\\c.jpg", "d.jpg"]
    assert [row["image_id"] for row in rows_of(written(tmp_path, "a.txt", "\n".join(uris)))] == [
        *("cat/a.jpg", "cat/sub/b.jpg", "d.jpg", "dog/sub/c.jpg", "it\\is.jpg")
    ]
    said = capsys.readouterr().err
    assert "manifest: 3 uris have backslashes where no such file is: they are taken as /" in said
    assert "such as 'cat\\\\a.jpg'" in said
    assert "'cat/a.jpg' is there twice" in refusal(written(tmp_path, "b.txt", "cat\\a.jpg\ncat/a.jpg\n"))
