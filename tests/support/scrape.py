"""Metrics of a cluster as Prometheus would scrape them."""

import json
import re
import urllib.request
from collections import Counter
from pathlib import Path
from urllib.error import URLError

SERIES = re.compile(r"(ray_camray_\w+)\{(.*)\} (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
OURS = ("status", "stage", "at", "node")


def scraped(folder: Path) -> dict[str, float]:
    """Return camray's metrics by name, and label if there is one, added up over the nodes of the head in `folder`."""
    found: Counter[str] = Counter()
    for group in json.loads((folder / "prom_metrics_service_discovery.json").read_text()):
        for target in group["targets"]:
            try:
                text = urllib.request.urlopen(f"http://{target}/metrics", timeout=10).read().decode()
            except URLError:
                continue  # a node that has gone since
            for name, labels, value in SERIES.findall(text):
                own = [f"{label}={value}" for label, value in LABEL.findall(labels) if label in OURS]
                found[" ".join([name.removeprefix("ray_"), *own])] += float(value)
    return dict(found)
