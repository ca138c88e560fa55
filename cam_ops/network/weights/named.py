"""Names of classes that a trainer has left beside the weights, by the keys that they usually have."""

from typing import Any

from cam_ops.classes import whole_number
from cam_ops.network.weights.checkpoints import dictionaries_in

NUMBER_OF = ("class_to_idx", "label2id")  # numbers by name; the first is torchvision's ImageFolder's
NAME_OF = ("idx_to_class", "id2label")  # names by number
LISTS = ("classes", "class_names", "CLASSES")  # mmpretrain's is the last
LONGEST_NAME = 1000


def names_in(loaded: object, num_outputs: int) -> dict[str, list[str]]:
    """Return the lists of names that a file gives the classes of a network with so many outputs, by their dotted keys.

    One output may have two names, of its two classes. What is no name for each class, each once, is no such list.
    """
    found: dict[str, list[str]] = {}
    numbers = (1, 2) if num_outputs == 1 else (num_outputs,)
    for place, inner in dictionaries_in(loaded):
        for key in (*NUMBER_OF, *NAME_OF, *LISTS):
            value = inner.get(key)
            if isinstance(value, (dict, list, tuple)) and len(value) in numbers and (names := _names(key, value)):
                found[f"{place}.{key}" if place else key] = names
    return found


def _names(key: str, value: Any) -> list[str]:
    if key in LISTS:
        names = [] if isinstance(value, dict) else list(value)
    elif not isinstance(value, dict):
        return []
    else:
        pairs = value.items() if key in NAME_OF else [(number, name) for name, number in value.items()]
        name_of = {_number(number): name for number, name in pairs}
        names = list(map(name_of.get, range(len(value))))
    if not all(isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME for name in names):
        return []
    are_numbers = names == [f"LABEL_{i}" for i in range(len(names))]  # as transformers calls what has no name
    return [] if are_numbers or len({*names}) < len(names) else names


def _number(number: Any) -> int | None:
    if isinstance(number, str):
        return whole_number(number)
    return number if isinstance(number, int) and not isinstance(number, bool) else None
