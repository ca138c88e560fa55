"""Names of classes that a trainer has left beside the weights, by the keys that they usually have."""

from collections.abc import Mapping
from typing import Any

from cam_ops.classes import whole_number
from cam_ops.network.weights.checkpoints import Skipped, dictionaries_in

NUMBER_OF = ("class_to_idx", "label2id")  # numbers by name; the first is torchvision's ImageFolder's
NAME_OF = ("idx_to_class", "id2label")  # names by number
LISTS = ("classes", "class_names", "CLASSES")  # mmpretrain's is the last


def names_in(loaded: object, num_outputs: int) -> dict[str, list[str]]:
    """Return the lists of names that a file gives the classes of a network with so many outputs, by their dotted keys.

    One output may have two names, of its two classes. What is no name for each class, each once, is no such list.
    """
    found: dict[str, list[str]] = {}
    for place, inner in dictionaries_in(loaded):
        for key in (*NUMBER_OF, *NAME_OF, *LISTS):
            names = _names(key, inner.get(key))
            if len(names) == num_outputs or (num_outputs == 1 and len(names) == 2):
                found[f"{place}.{key}" if place else key] = names
    return found


def _names(key: str, value: Any) -> list[str]:
    if key in LISTS:
        names = list(value) if isinstance(value, (list, tuple)) and not isinstance(value, Skipped) else []
    elif not isinstance(value, dict):
        names = []
    else:
        names = _in_order(value if key in NAME_OF else {number: name for name, number in value.items()})
    is_whole = all(isinstance(name, str) and name.strip() for name in names) and len({*names}) == len(names)
    return names if is_whole else []


def _in_order(name_of: Mapping[Any, Any]) -> list[Any]:
    """Return names in the order of their numbers; none where these are not 0, 1, ..., each once."""
    by_number = {whole_number(str(number)): name for number, name in name_of.items()}
    return [by_number[i] for i in range(len(name_of))] if by_number.keys() == {*range(len(name_of))} else []
