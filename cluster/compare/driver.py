"""`compare`: what changed between two runs, from their tables and, where both are audited, from their audits."""

from dataclasses import dataclass

from cam_ops.errors import UsageError
from cluster.audit.files import MetricsFile
from cluster.audit.named import find_audit
from cluster.compare.audits import AuditChanges, audit_changes
from cluster.compare.scratch import scratch_tables
from cluster.compare.tables import TableChanges, load_tables, table_changes
from cluster.runs.differences import changed_fields
from cluster.runs.directory import RunDir
from cluster.runs.record import existing_run

NUM_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All that changed from A to B; images are matched by id."""

    a: str
    b: str
    settings: dict[str, tuple[str, str]]  # by name, in A and in B, where they differ
    incomplete: dict[str, str]  # A or B: how far it is
    tables: TableChanges
    audit: AuditChanges | None
    not_audited: list[str]  # A, B


def compare(
    a_dir: RunDir, b_dir: RunDir, num_examples: int = NUM_EXAMPLES, audits: tuple[str | None, str | None] = (None, None)
) -> Comparison:
    """Compare two runs, with so many examples of each change at most, and their audits of those names.

    Raises StorageError where one is none, or is damaged, UsageError if they share no image, or lack such an audit.
    """
    a, b = existing_run(a_dir), existing_run(b_dir)
    a_files, a_audit = find_audit(a_dir, a, audits[0])
    b_files, b_audit = find_audit(b_dir, b, audits[1])
    settings, incomplete, audit = changed_fields(a, b), {}, None
    with scratch_tables() as tables:
        for side, run_dir, run in (("a", a_dir, a), ("b", b_dir, b)):
            committed = sorted(shard for shard in run_dir.shards("images") if shard < run.plan.num_shards)
            if len(committed) < run.plan.num_shards:
                incomplete[side.upper()] = f"{len(committed)} of {run.plan.num_shards} shards are committed"
            load_tables(tables, side, run_dir, run, committed)
        changes = table_changes(tables, a, b, num_examples)
        if not changes.images and changes.images_a and changes.images_b:
            raise UsageError(
                f"{a_dir.root} and {b_dir.root} have no image in common, so there is nothing to compare: ids are paths "
                "below --images; give two runs of the same images"
            )
        if a_audit and b_audit:
            settings |= _changed_settings(a_audit, b_audit)
            audit = audit_changes(tables, (a_files, b_files), (a_audit, b_audit), a, num_examples)
    return Comparison(
        a=a_dir.root,
        b=b_dir.root,
        settings=settings,
        incomplete=incomplete,
        tables=changes,
        audit=audit,
        not_audited=[side for side, found in (("A", a_audit), ("B", b_audit)) if found is None],
    )


def _changed_settings(a: MetricsFile, b: MetricsFile) -> dict[str, tuple[str, str]]:
    was, now = a.settings, b.settings
    different = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return {f"audit.{name}": (str(was.get(name)), str(now.get(name))) for name in different}
