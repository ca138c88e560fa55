"""What an export wrote and left out: whole numbers that add up over its parts."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Counts:
    """Of some pictures, or all."""

    images: int = 0
    boxes: int = 0
    classes: set[int] = field(default_factory=set)  # of the boxes
    splits: Counter[str] = field(default_factory=Counter)  # images by split
    images_left_out: Counter[str] = field(default_factory=Counter)  # by the reason
    boxes_left_out: Counter[str] = field(default_factory=Counter)  # by the filter's flag, or the reason of their image
    examples: dict[str, str] = field(default_factory=dict)  # an image_id for each reason
    renamed: int = 0
    rewritten: int = 0  # pictures that could not be linked or copied as they are

    def leave_out(self, image_id: str, reason: str, num_boxes: int) -> None:
        """Count an image that is left out, with its boxes."""
        self.images_left_out[reason] += 1
        self.examples.setdefault(reason, image_id)
        if num_boxes:
            self.boxes_left_out[reason] += num_boxes

    def __iadd__(self, other: "Counts") -> "Counts":
        self.images += other.images
        self.boxes += other.boxes
        self.classes |= other.classes
        self.splits += other.splits
        self.images_left_out += other.images_left_out
        self.boxes_left_out += other.boxes_left_out
        self.examples = {**other.examples, **self.examples}
        self.renamed += other.renamed
        self.rewritten += other.rewritten
        return self
