"""The names of a run's files, below its directory."""

import re

LOG = "log"  # folder of the sessions' files
QUARANTINE = "quarantine"  # folder of what is known of pictures that kill their replica
DERIVED = {
    "audit": (".json", ".parquet", ".png", ".svg", ".csv"),
    "show": (".png",),
    LOG: (".jsonl",),
}  # what is no part of a run's tables, by folder
TABLES = ("heatmaps", "boxes", "images")  # in the order of publication: the last commits the shard
RUN, SUMMARY, SUSPECTS, REPORT = "run.json", "summary.json", "suspects.parquet", "report.html"
SESSION_FILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.jsonl", re.ASCII)  # in log/; by name they are in order
SHARD_FILE = re.compile(r"shard-(\d{7,})\.parquet")
QUARANTINE_FILE = re.compile(r"shard-(\d{7,})\.json")


def shard_name(table: str, shard: int) -> str:
    """Return the name of a shard's file, below the run directory."""
    return f"{table}/shard-{shard:07d}.parquet"


def quarantine_name(shard: int) -> str:
    """Return the name of the file on a shard's pictures that kill their replica, below the run directory."""
    return f"{QUARANTINE}/shard-{shard:07d}.json"


def plan_name(part: int) -> str:
    """Return the name of a part of the plan, below the run directory."""
    return f"plan/part-{part:05d}.parquet"
