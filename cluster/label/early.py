"""What can be said against a new run in a fraction of a second: before torch, the network, stores or Ray are asked."""

import os
from pathlib import Path

from cam_ops.class_lists import read_class_names
from cam_ops.network.names import check_network
from cluster.label.config import LabelConfig
from cluster.runs.calibration import read_calibration
from cluster.runs.directory import RunDir
from cluster.runs.resume import refuse_unwritable
from cluster.sources.folders.patterns import is_literal
from cluster.sources.kinds import open_listing
from cluster.sources.labels.find import WORDS, labels_digest
from cluster.sources.several import check_sources
from cluster.storage.objects import is_store


def check_early(config: LabelConfig, run_dir: RunDir) -> None:
    """Raise for names that are none, and for files and folders of this machine that are not there.

    Their content is another matter, as are stores: whoever reads them says what is wrong.
    """
    check_network(config.model)
    names, labels = config.model.class_names, config.label_source
    if names is not None and not Path(names).is_file():
        read_class_names(Path(names))
    if labels not in WORDS and not Path(labels).is_file():
        labels_digest(labels)
    if config.calibration is not None:
        read_calibration(config.calibration)
    local = [address for address in config.addresses if not is_store(address)]
    check_sources(local, config.options)
    for address in local:
        if is_literal(address) and not os.path.lexists(address):
            with open_listing(address):  # which says in the words of its kind that it is not there
                pass
    refuse_unwritable(run_dir)
