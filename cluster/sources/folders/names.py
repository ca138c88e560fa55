"""Which names mean pictures, alike in folders, on stores and in tar files; and what is said of those that do not."""

from cam_ops.pictures.formats import PictureFormat, format_named, read_formats, read_suffixes, suffix_of
from cluster.process.console import shown
from cluster.sources.listing import Remarks, remark

SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "@tmp", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found")
)
SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))

HIDDEN_FOLDERS = "hidden folders and those of systems and file managers are left out"
OTHER_FILES = "files of other kinds, by their suffix, are left out"
HIDDEN_FILES = "hidden files and those of systems and file managers are left out"


def is_hidden_folder(name: str) -> bool:
    """Say whether a folder is hidden, as `.ipynb_checkpoints`, or made by a system for itself, as `__MACOSX`."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def is_hidden_file(name: str) -> bool:
    """Say whether a file is hidden, as macOS's notes on pictures `._*`, or made by a system for itself."""
    return name.startswith(".") or name.casefold() in SYSTEM_FILES


def is_named_as_picture(name: str) -> bool:
    """Say whether a file's name means a picture that is read."""
    return suffix_of(name) in read_suffixes() and not is_hidden_file(name)


def is_picture(name: str, where: str, remarks: Remarks) -> bool:
    """Say whether a file's name means a picture that is read; note where it is hidden, or a picture of another kind."""
    if is_hidden_file(name):
        remark(remarks, HIDDEN_FILES, shown(where))
        return False
    suffix = suffix_of(name)
    if suffix in read_suffixes():
        return True
    if suffix and (form := format_named(suffix)):
        remark_unread(remarks, f".{suffix}", form, where)
    elif suffix:
        remark(remarks, OTHER_FILES, shown(where))
    return False


def remark_unread(remarks: Remarks, called: str, form: PictureFormat, where: str) -> None:
    """Note a picture of a format that is not read."""
    remark(remarks, f"files {called} are left out: {form.name} is not read; {form.cure}", shown(where))


def expected() -> str:
    """Return what is looked for, as a message says it."""
    return f"pictures ({', '.join(suffix for form in read_formats() for suffix in form.suffixes)})"
