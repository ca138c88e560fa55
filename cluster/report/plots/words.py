"""What an audit's figures, failures, reasons and signals mean, in few words; docs/audit.md has them at length."""

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    "gt_known_loc": "best box of the true class has IoU 0.5",
    "top1_loc": "the same, and the class is the network's best",
    "top5_loc": "the same, and the class is among its five best",
    "mean_best_iou": "best IoU of a box, averaged",
    "corloc": "best box of each class right, averaged over classes",
    "ap": "COCO, IoU 0.5 to 0.95",
    "ap_50": "COCO, IoU 0.5",
    "ap_75": "COCO, IoU 0.75",
    "instance_precision": "boxes that match an object",
    "instance_recall": "objects that are matched",
    "max_box_acc": "largest region, best threshold for all, IoU 0.5",
    "max_box_acc_v2": "any region, mean of IoU 0.3, 0.5, 0.7",
    "max_box_acc_v2_30": "any region, IoU 0.3",
    "max_box_acc_v2_50": "any region, IoU 0.5",
    "max_box_acc_v2_70": "any region, IoU 0.7",
    "box_acc_calibrated": "largest region, threshold chosen on others",
    "box_acc_v2_calibrated": "any region, thresholds chosen on others",
    "box_acc_oracle": "each image at its own best threshold",
    "px_ap": "pixels against masks",
    "px_ap_box_filled": "pixels against filled boxes",
    "pointing_game": "highest pixel lies in an object",
    "energy_pointing_game": "share of the map in objects",
    "energy_ratio": "that share over the share outside",
    "centre_box": "a box in the middle, IoU 0.5",
    "centre_box_30": "a box in the middle, IoU 0.3",
    "centre_box_70": "a box in the middle, IoU 0.7",
    "centre_box_v2": "a box in the middle, mean of the three",
    "whole_image": "the whole picture, IoU 0.5",
    "whole_image_30": "the whole picture, IoU 0.3",
    "whole_image_70": "the whole picture, IoU 0.7",
    "whole_image_v2": "the whole picture, mean of the three",
    "reachable_50": "the network saw enough for IoU 0.5",
    "reachable_70": "the network saw enough for IoU 0.7",
}

FAILURES: Mapping[str, str] = {
    "unreachable": "no box in what the network saw has IoU 0.5",
    "wrong_class": "the box is right, another class scores best",
    "several_in_one": "one box holds several objects",
    "too_large": "the box holds the object, and much else",
    "part": "the box lies inside the object: a head for a dog",
    "missed": "none of these, or no box",
}

EXCLUDED: Mapping[str, str] = {
    "not in the truth": "the truth does not name them",
    "no true box or mask": "the truth names them without an object",
    "truth incomplete": "one of their objects cannot be used",
    "true class unknown": "label them, or say with --class-map what the truth's words mean",
    "no map of the true class": "label them, so that --classes label maps it",
    "mask unreadable": "mend the mask",
    "mask of another shape": "give masks of the picture's ratio",
}

SLICES: Mapping[str, str | None] = {
    "small": "below 32\u00b2 pixels",
    "medium": "below 96\u00b2 pixels",
    "large": "96\u00b2 pixels or more",
    "one_object": None,
    "several_objects": None,
}

UNIT = (0.0, 1.0)
SIGNALS: Mapping[str, tuple[str, tuple[float, float] | None]] = {  # and where its axis ends, if it has one
    "score": ("the network's probability of the class", UNIT),
    "entropy": ("how spread the map is; 1 is the same everywhere", UNIT),
    "concentration": ("how much lies in few cells; 0 is the same everywhere", UNIT),
    "border_mass": ("share of the map along the border", UNIT),
    "box_area": ("best box over picture", UNIT),
    "num_components": ("regions at the run's threshold", None),
}
