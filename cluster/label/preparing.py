"""`Preparation` wherever it runs: in this process, or in one of its own, which ends before the first shard."""

from contextlib import suppress

from cam_ops.settings import Device
from cluster.label.config import LabelConfig
from cluster.label.first_pictures import Wanted, load_first
from cluster.label.settled import Survey
from cluster.process.apart import Apart, Here, ProcessEnded
from cluster.runs.record import Run


class Preparing:
    """Looks at the network from the moment that it is made. Its calls are those of `cluster.label.preparation`."""

    def __init__(self, config: LabelConfig, *, apart: bool = False) -> None:
        """Begin, in a process of its own where actors will do the work: the driver then stays without torch.

        With `apart` it is one of its own anyway.
        """
        where = Here if config.executor == "inline" and not apart else Apart
        self.held = where("cluster.label.preparation:Preparation", config)
        self.options = config.options
        self.is_settled = False

    def refuse_another(self, run: Run) -> None:
        """Raise RefusedError unless the configuration asks for what the run in place was asked for."""
        self.held.call("refuse_another", run)

    def settle(self, num_replicas: int, device: Device) -> None:
        """List the source and settle what flags leave open, for `begin`; look at some pictures. Nothing is written."""
        wanted: Wanted | None = self.held.call("settle", num_replicas, device)
        self.is_settled = True
        if wanted is not None and (pictures := load_first(wanted, self.options)):
            self.held.call("look_at", pictures)

    def begin(self, command_line: tuple[str, ...] | None) -> Run:
        """Publish plan and run.json of what was settled, the latter last."""
        self.is_settled = False
        run: Run = self.held.call("begin", command_line)
        return run

    def survey(self, num_rows: int, num_batches: int) -> Survey:
        """Look through what was settled instead of `begin`, and draw rows, and batches beside. Nothing is written."""
        self.is_settled = False
        survey: Survey = self.held.call("survey", num_rows, num_batches)
        return survey

    def close(self) -> None:
        """End it, with its process."""
        try:
            if self.is_settled:
                with suppress(ProcessEnded):  # what it held is gone with it
                    self.held.call("forget")
        finally:
            self.held.close()
