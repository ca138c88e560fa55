"""The demo's photographs: files that scikit-image and scikit-learn ship, with one object each, boxed by eye.

Boxes are half-open pixels of the original. The class is the closest of ImageNet's, by torchvision's name.
"""

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from cam_ops.errors import MachineError


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph, its class and the object's box."""

    file: str
    package: str
    class_name: str
    box: tuple[int, int, int, int]  # x0, y0, x1, y1


PHOTOS = (
    Photo("chelsea.png", "skimage", "tabby", (0, 0, 395, 300)),
    Photo("coffee.png", "skimage", "espresso", (77, 17, 480, 390)),  # cup and saucer
    Photo("motorcycle_left.png", "skimage", "moped", (92, 75, 685, 450)),
    Photo("flower.jpg", "sklearn", "daisy", (170, 86, 446, 360)),
    Photo("china.jpg", "sklearn", "stupa", (62, 30, 372, 427)),
    Photo("camera.png", "skimage", "tripod", (230, 205, 405, 512)),
    Photo("rocket.jpg", "skimage", "missile", (303, 127, 337, 408)),
    Photo("astronaut.png", "skimage", "space shuttle", (352, 0, 460, 285)),
)
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


def copy_photos(folder: Path) -> None:
    """Copy the photographs into `folder`; raises MachineError where the packages are not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo in PHOTOS:
        shutil.copyfile(_package_folder(photo.package) / FOLDERS[photo.package] / photo.file, folder / photo.file)


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MachineError(f"the demo's photographs come with {package}, which is missing; pip install 'camray[demo]'")
    return Path(spec.origin).parent
