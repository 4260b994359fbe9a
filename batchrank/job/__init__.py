"""
The one place that wires concrete classes: from a job file to a run and its summary.

`loading` turns a file into a `Job` (nothing but the file and the key are looked at), `opening`
checks the world that the job names (source, output, ledger) before anything is paid, `started` what
may be another on an output that was begun, `running` carries it out, `ending` says what came of it.
This module owns the public entry `run`.
"""

from batchrank.job.loading import Job, load
from batchrank.job.running import run
from batchrank.job.steering import Steering

__all__ = ["Job", "Steering", "load", "run"]
