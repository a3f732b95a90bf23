"""Which Beam runner a stage uses, and with what."""

from __future__ import annotations

import logging

from apache_beam.options.pipeline_options import PipelineOptions


def local_options(num_workers: int = 1) -> PipelineOptions:
    """Options of a local run: the in-memory FnApiRunner, in this process or in `num_workers`.

    The runner is named because "DirectRunner" would try Prism first, which downloads a binary.
    """
    # What goes wrong in a stage is raised here as well; Beam's own account of it, with several
    # tracebacks, would bury the message that a user should read.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    flags = ["--runner=FnApiRunner", f"--direct_num_workers={num_workers}"]
    if num_workers > 1:
        flags.append("--direct_running_mode=multi_processing")
    return PipelineOptions(flags)
