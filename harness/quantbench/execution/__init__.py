"""Execution: jobs in worker processes, under limits of time and memory. NumPy only."""

from quantbench.execution.channel import receive, send
from quantbench.execution.executor import Done, Executor, LocalExecutor, StepGraph
from quantbench.execution.job import Ending, Job
from quantbench.execution.made_files import made, unmade
from quantbench.execution.process import Process
from quantbench.execution.remote_session import RemoteSession
from quantbench.execution.scheduler import TRIES, run_jobs
from quantbench.execution.step import Resources, Step

__all__ = [
    "TRIES",
    "Done",
    "Ending",
    "Executor",
    "Job",
    "LocalExecutor",
    "Process",
    "RemoteSession",
    "Resources",
    "Step",
    "StepGraph",
    "made",
    "receive",
    "run_jobs",
    "send",
    "unmade",
]
