"""Metrics of a cluster as Prometheus would scrape them."""

import json
import re
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path
from urllib.error import URLError

SERIES = re.compile(r"(ray_camray_\w+)\{(.*)\} (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')
OURS = ("status", "stage", "at", "node")


def scraped(folder: Path) -> dict[str, float]:
    """Return the metrics of the last driver by name, and label if there is one; the head's files are in `folder`."""
    found: dict[bytes, Counter[str]] = defaultdict(Counter)  # by the number of the driver's job, lowest byte first
    for group in json.loads((folder / "prom_metrics_service_discovery.json").read_text()):
        for target in group["targets"]:
            try:
                text = urllib.request.urlopen(f"http://{target}/metrics", timeout=10).read().decode()
            except URLError:
                continue  # a node that has gone since
            for name, labels, value in SERIES.findall(text):
                of = dict(LABEL.findall(labels))
                own = [f"{label}={of[label]}" for label in OURS if label in of]
                job = bytes.fromhex(of["WorkerId"][:8])
                found[job][" ".join([name.removeprefix("ray_"), *own])] += float(value)
    return dict(found[max(found, key=lambda job: job[::-1])]) if found else {}
