"""The seed post's system: STL10's own binary files, a ResNet-18 of ten classes, the blog recipe.

The files here are written by the format's description and read back by torchvision; maps, boxes and drawings are
compared with the post's own lines.
"""

import json
import os
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage.measure import label as components
from skimage.measure import regionprops
from torchvision import transforms
from torchvision.datasets import STL10
from torchvision.transforms.v2 import functional

from jobs.demo_photos import copy_photos
from tests.support.command import Command, listed, table_rows
from tests.support.pictures import load_picture

NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
NUM_PICTURES = {"train": 12, "test": 10, "unlabeled": 6}
NUM_LABELLED = NUM_PICTURES["train"] + NUM_PICTURES["test"]
BLOG_TRANSFORM = transforms.Compose([transforms.Resize((128, 128)), transforms.ToTensor()])


class OwnFiles(STL10):
    """torchvision's reader for files of ours, whose checksums it cannot know."""

    train_list = (("train_X.bin", None), ("train_y.bin", None), ("unlabeled_X.bin", None))
    test_list = (("test_X.bin", None), ("test_y.bin", None))


def write_pictures(path: Path, images: list[np.ndarray]) -> None:
    """Write RGB pictures (96, 96, 3) byte by byte: red, green, blue; in each the columns from left to right."""
    content = bytearray()
    for image_HWC in images:
        for channel in range(3):
            for column in range(96):
                content += image_HWC[:, column, channel].tobytes()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[np.ndarray]]:
    """Photographs by split, RGB (96, 96, 3): squares cut from the demo's photographs at several places and sizes."""
    folder = tmp_path_factory.mktemp("photos")
    copy_photos(folder)
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    generator, images = np.random.default_rng(0), []
    for i in range(sum(NUM_PICTURES.values())):
        photo = photos[i % len(photos)]
        side = int(generator.integers(96, min(photo.size)))
        x, y = (int(generator.integers(0, length - side)) for length in photo.size)
        images.append(np.asarray(photo.crop((x, y, x + side, y + side)).resize((96, 96))))
    starts = np.cumsum([0, *NUM_PICTURES.values()])
    return {split: images[a : a + n] for a, (split, n) in zip(starts, NUM_PICTURES.items(), strict=False)}


@pytest.fixture(scope="module")
def labels() -> dict[str, list[int]]:
    """Labels by split, 1..10, every class among them."""
    generator = np.random.default_rng(1)
    return {split: [*generator.permutation(10) + 1, 3, 1][: NUM_PICTURES[split]] for split in ("train", "test")}


def write_stl10(folder: Path, crops: dict[str, list[np.ndarray]], labels: dict[str, list[int]]) -> Path:
    folder.mkdir()
    for split, images in crops.items():
        write_pictures(folder / f"{split}_X.bin", images)
    for split, values in labels.items():
        (folder / f"{split}_y.bin").write_bytes(bytes(values))
    (folder / "class_names.txt").write_text("\n".join(NAMES))
    (folder / "fold_indices.txt").write_text("0 1 2\n" * 10)
    return folder


@pytest.fixture
def stl10(crops: dict[str, list[np.ndarray]], labels: dict[str, list[int]], tmp_path: Path) -> Path:
    """All of STL10's files, small."""
    return write_stl10(tmp_path / "stl10_binary", crops, labels)


@pytest.fixture(scope="module")
def weights(
    crops: dict[str, list[np.ndarray]], labels: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A ResNet-18 of ten classes, saved as the post saves it: its last layer is fitted to the labelled pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = torchvision.models.resnet18(num_classes=10).eval()
    last, network.fc = network.fc, torch.nn.Identity()
    images_B = [Image.fromarray(image_HWC) for split in labels for image_HWC in crops[split]]
    with torch.no_grad():
        features_BC = network(torch.stack([BLOG_TRANSFORM(image) for image in images_B]))
        centre_C = features_BC.mean(0)
        wanted_BK = 10 * torch.eye(10)[torch.tensor([y - 1 for split in labels for y in labels[split]])]
        last.weight.data = torch.linalg.lstsq(features_BC - centre_C, wanted_BK, driver="gelsd").solution.T.contiguous()
        last.bias.data = -last.weight @ centre_C
    network.fc = last
    path = tmp_path_factory.mktemp("weights") / "stl10.pth"
    torch.save(network.state_dict(), path)
    return path


def blog(folder: Path, weights: Path, out: Path, *more: object) -> Command:
    """Run the README's command."""
    flags = ["--labels", "folder", "--class-names", folder / "class_names.txt", "--model", "resnet18"]
    recipe = ["--weights", weights, "--recipe", "blog", "--executor", "inline"]
    return Command("label", "--images", folder, "--out", out, *flags, *recipe, *more)


@pytest.fixture(scope="module")
def blog_run(
    crops: dict[str, list[np.ndarray]],
    labels: dict[str, list[int]],
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run of the post's system over all pictures."""
    folder = tmp_path_factory.mktemp("blog")
    done = blog(write_stl10(folder / "stl10_binary", crops, labels), weights, folder / "run")
    assert (done.code, done.result["images"], done.result["ok"]) == (0, 28, 28), done.err
    return folder / "run"


def crop_of(crops: dict[str, list[np.ndarray]], image_id: str) -> np.ndarray:
    split, number = image_id.split("/")[-1].split("-")
    return crops[split][int(number)]


def expected_ids(labels: dict[str, list[int]]) -> list[str]:
    with_class = [f"{NAMES[y - 1]}/{split}-{i:06d}" for split, ys in labels.items() for i, y in enumerate(ys)]
    return sorted([*with_class, *(f"unlabeled-{i:06d}" for i in range(NUM_PICTURES["unlabeled"]))])


def test_every_picture_and_class_is_what_torchvision_reads(
    stl10: Path, crops: dict[str, list[np.ndarray]], labels: dict[str, list[int]]
) -> None:
    rows = {row["image_id"]: row for row in listed(str(stl10)).to_pylist()}
    assert list(rows) == expected_ids(labels)
    for split, num_pictures in NUM_PICTURES.items():
        theirs = OwnFiles(str(stl10.parent), split=split)
        assert len(theirs) == num_pictures
        for i, (picture, target) in enumerate(theirs):
            prefix = "" if target == -1 else f"{theirs.classes[target]}/"
            ours_HWC = load_picture(rows[f"{prefix}{split}-{i:06d}"])
            np.testing.assert_array_equal(ours_HWC, np.asarray(picture))
            np.testing.assert_array_equal(ours_HWC, crops[split][i])


def test_red_is_first_and_columns_run_down(tmp_path: Path) -> None:
    content = np.zeros(27_648, np.uint8)
    content[1 * 96 + 2] = 10  # red, second column, third row
    content[96 * 96 + 95] = 20  # green, first column, last row
    content[2 * 96 * 96 + 95 * 96] = 30  # blue, last column, first row
    (tmp_path / "test_X.bin").write_bytes(content)
    image_HWC = load_picture(listed(str(tmp_path)).to_pylist()[0])
    lit = {(y, x, channel): image_HWC[y, x, channel] for y, x, channel in np.argwhere(image_HWC).tolist()}
    assert lit == {(2, 1, 0): 10, (95, 0, 1): 20, (0, 95, 2): 30}


def test_each_picture_has_one_row_with_its_label_and_one_map_of_its_best_class(
    blog_run: Path, labels: dict[str, list[int]]
) -> None:
    images = table_rows(blog_run, "images")
    assert [image["image_id"] for image in images] == expected_ids(labels)
    for image in images:
        split, number = image["image_id"].split("/")[-1].split("-")
        assert image["label"] == (labels[split][int(number)] - 1 if split in labels else None)
        assert image["label"] in (None, image["top_classes"][0])
        assert (image["width"], image["height"], image["status"]) == (96, 96, "ok")
    heatmaps = {(heatmap["image_id"], heatmap["class_id"]) for heatmap in table_rows(blog_run, "heatmaps")}
    assert heatmaps == {(image["image_id"], image["top_classes"][0]) for image in images}
    request = json.loads((blog_run / "run.json").read_text())["request"]
    assert request["preprocessing"]["image_size"] == 128
    assert {box["class_name"] for box in table_rows(blog_run, "boxes")} == set(NAMES)
    assert Command("verify", blog_run).code == 0


def cam_of_the_post(img: Image.Image, weights: Path) -> tuple[int, np.ndarray]:
    """Return the predicted class and its map before scaling, by the post's own lines."""
    model = torchvision.models.resnet18(num_classes=10)
    model.load_state_dict(torch.load(weights))
    model.eval()
    feature_blobs: list[np.ndarray] = []
    model._modules["layer4"].register_forward_hook(lambda *call: feature_blobs.append(call[2].cpu().data.numpy()))
    class_weights = np.squeeze(list(model.parameters())[-2].cpu().data.numpy())
    tensor_img = BLOG_TRANSFORM(img).view(1, 3, 128, 128)
    pred = model(tensor_img).data.squeeze().argmax(0).item()
    final_conv = feature_blobs[0][0]
    cam = np.zeros(dtype=np.float32, shape=final_conv.shape[1:3])
    for i, w in enumerate(class_weights[pred]):
        cam += w * final_conv[i, :, :]
    return pred, cam


def test_the_raw_map_is_the_post_s_sum(blog_run: Path, crops: dict[str, list[np.ndarray]], weights: Path) -> None:
    for heatmap in table_rows(blog_run, "heatmaps"):
        image_HWC = crop_of(crops, heatmap["image_id"])
        resized_CSS = functional.resize(torch.from_numpy(image_HWC.copy()).permute(2, 0, 1), [128, 128])
        img = functional.to_pil_image(resized_CSS)  # for the post's Resize, which leaves it as it is
        by_pillow = Image.fromarray(image_HWC).resize((128, 128), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(img, int) - np.asarray(by_pillow, int)).max() <= 1
        pred, cam = cam_of_the_post(img, weights)
        assert heatmap["class_id"] == pred
        ours = np.array(heatmap["heatmap"], np.float32).reshape(4, 4)
        np.testing.assert_allclose(ours, cam, rtol=0, atol=2e-5 * np.abs(cam).max())  # 4e-6 measured


def assert_boxes_of_the_scaled_map(out: Path, threshold: float) -> int:
    """Compare each box with scikit-image's; return how many differ from the whole picture."""
    boxes = {box["image_id"]: [box[name] for name in ("x0", "y0", "x1", "y1")] for box in table_rows(out, "boxes")}
    assert len(boxes) == 28
    for heatmap in table_rows(out, "heatmaps"):
        cam = np.array(heatmap["heatmap"], np.float32).reshape(4, 4)
        cam = cam - np.min(cam)
        cam = cam / np.max(cam)
        resized_cam = cv2.resize(cam, (128, 128))
        regions = regionprops(components(resized_cam >= threshold * resized_cam.max(), connectivity=2))
        y0, x0, y1, x1 = max(regions, key=lambda region: region.area).bbox
        assert boxes[heatmap["image_id"]] == [x0 * 0.75, y0 * 0.75, x1 * 0.75, y1 * 0.75]
    return sum(box != [0, 0, 96, 96] for box in boxes.values())


def test_boxes_are_of_the_scaled_map_enlarged_bilinearly(
    blog_run: Path, stl10: Path, weights: Path, tmp_path: Path
) -> None:
    assert assert_boxes_of_the_scaled_map(blog_run, 0.2) > 0
    assert blog(stl10, weights, tmp_path / "run", "--threshold", 0.7).code == 0
    assert assert_boxes_of_the_scaled_map(tmp_path / "run", 0.7) > 14


def test_show_draws_the_post_s_overlay_on_the_picture(
    blog_run: Path, crops: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    heatmap = table_rows(blog_run, "heatmaps")[0]
    assert Command("show", blog_run, heatmap["image_id"], "--to", tmp_path / "shown.png").code == 0
    cam = np.array(heatmap["heatmap"], np.float32).reshape(4, 4)
    cam = cam - np.min(cam)
    cam = cam / np.max(cam)
    heat = cv2.applyColorMap(np.uint8(255 * cv2.resize(cam, (128, 128))), cv2.COLORMAP_JET)
    img = cv2.resize(crop_of(crops, heatmap["image_id"])[..., ::-1], (128, 128))
    cv2.imwrite(str(tmp_path / "cam.png"), heat * 0.3 + img * 0.5)
    shown = cv2.imread(str(tmp_path / "shown.png"))
    np.testing.assert_array_equal(shown[:, 256:], cv2.imread(str(tmp_path / "cam.png")))


def test_classes_label_maps_the_labels_and_nothing_for_the_unlabelled(
    stl10: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert blog(stl10, weights, out, "--classes", "label").code == 0
    images = {image["image_id"]: image for image in table_rows(out, "images")}
    assert {image["status"] for image in images.values()} == {"ok"}
    heatmaps = {heatmap["image_id"]: heatmap["class_id"] for heatmap in table_rows(out, "heatmaps")}
    assert heatmaps == {name: image["label"] for name, image in images.items() if "/" in name}
    assert len(heatmaps) == NUM_LABELLED


def test_a_file_that_shrinks_or_vanishes_after_the_plan_spoils_its_own_pictures_only(
    stl10: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert blog(stl10, weights, out).code == 0
    before = table_rows(out, "images")
    for path in (out / "images").iterdir():
        path.unlink()
    os.truncate(stl10 / "train_X.bin", 10 * 27_648 + 5)
    (stl10 / "unlabeled_X.bin").unlink()
    assert blog(stl10, weights, out).code == 3
    after = table_rows(out, "images")
    for was, image in zip(before, after, strict=True):
        split, number = image["image_id"].split("/")[-1].split("-")
        cut = split == "train" and int(number) >= 10
        assert image["status"] == ("missing" if split == "unlabeled" else "truncated" if cut else "ok")
        if image["status"] == "ok":
            assert image == was
    assert {image["error"] for image in after if image["status"] == "truncated"} == {
        *(f"{left} of the 27648 bytes of an STL10 picture are left" for left in (0, 5))
    }


def test_any_subset_of_the_files_will_do(stl10: Path) -> None:
    (stl10 / "class_names.txt").unlink()
    (stl10 / "test_y.bin").unlink()
    (stl10 / "unlabeled_X.bin").unlink()
    (stl10 / "bird.jpg").write_bytes(b"an ordinary picture beside them")
    ids = listed(str(stl10))["image_id"].to_pylist()
    assert [image_id for image_id in ids if "/" not in image_id] == [f"test-{i:06d}" for i in range(10)]
    assert {image_id.split("/")[0] for image_id in ids if "/" in image_id} == set(NAMES)
    assert len(ids) == len(set(ids)) == 22
    assert listed(str(stl10), 5)["image_id"].to_pylist() == ids[:5] == sorted(ids)[:5]
    (stl10 / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    own = listed(str(stl10))["image_id"].to_pylist()
    assert {image_id.split("/")[0] for image_id in own if "/" in image_id} == {f"class {i}" for i in range(10)}
    for split in ("train", "test"):
        (stl10 / f"{split}_X.bin").unlink()
    assert listed(str(stl10))["image_id"].to_pylist() == ["bird.jpg"]


def test_listing_a_hundred_thousand_pictures_reads_none(tmp_path: Path) -> None:
    (tmp_path / "unlabeled_X.bin").touch()
    os.truncate(tmp_path / "unlabeled_X.bin", 100_000 * 27_648)  # a hole: 2.7 GB that take no space
    tracemalloc.start()
    listing = listed(str(tmp_path))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100e6
    last = listing.slice(99_999).to_pylist()
    assert [(row["image_id"], row["offset"]) for row in last] == [("unlabeled-099999", 99_999 * 27_648)]
    assert load_picture(last[0]).shape == (96, 96, 3)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("train_X.bin", b"x" * 40_000, "expected pictures of 27648 bytes each in {}, found 40000 bytes"),
        ("unlabeled_X.bin", b"", "expected pictures of 27648 bytes each in {}, found 0 bytes"),
        ("train_y.bin", b"\x01" * 11, "expected 12 labels of one byte in {}, one for each picture, found 11 bytes"),
        ("train_y.bin", b"", "expected 12 labels of one byte in {}, one for each picture, found 0 bytes"),
        ("test_y.bin", bytes(range(10)), "expected labels from 1 to 10 in {}, found 0 at byte 0"),
        ("test_y.bin", bytes(range(2, 12)), "expected labels from 1 to 10 in {}, found 11 at byte 9"),
        ("class_names.txt", b"a" * 90_000, f"without a / in {{}}, found 1: {'a' * 200}...; mend the file"),
        ("class_names.txt", "\n".join(NAMES[:9]).encode(), "expected 10 different class names without a / in {}"),
        ("class_names.txt", "\n".join([*NAMES[:9], "ship"]).encode(), "found 10: airplane"),
        ("class_names.txt", "\n".join([*NAMES[:9], "a/b"]).encode(), "found 10: airplane"),
        ("class_names.txt", b"", "expected at least one class name in {}, found none"),
    ],
)
def test_files_that_are_not_stl10_s_exit_2_and_name_the_cure(
    stl10: Path, weights: Path, tmp_path: Path, file: str, content: bytes, says: str
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    (stl10 / file).write_bytes(content)
    failed = blog(stl10, weights, tmp_path / "run", "--class-names", tmp_path / "names.txt")
    assert failed.code == 2
    assert says.format(stl10 / file) in failed.result["error"]
    assert "Traceback" not in failed.err
    assert not (tmp_path / "run" / "run.json").exists()


def test_labels_that_cannot_be_read_exit_5(stl10: Path, weights: Path, tmp_path: Path) -> None:
    (stl10 / "train_y.bin").unlink()
    (stl10 / "train_y.bin").symlink_to("nowhere")
    failed = blog(stl10, weights, tmp_path / "run")
    assert (failed.code, f"cannot read {stl10 / 'train_y.bin'}" in failed.result["error"]) == (5, True)
