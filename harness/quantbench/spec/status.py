"""Status: what became of a trial, where that was decided, and the words that stand beside its numbers."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What became of a trial."""

    OK = "ok"
    NO_OP = "no-op"
    SIMULATED = "simulated"
    UNSUPPORTED = "unsupported"
    INVALID = "invalid"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out-of-memory"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _STATUS[self]


RAN = frozenset({Status.OK, Status.NO_OP, Status.SIMULATED})
"""Of trials that have an artifact whose outputs were good."""
FAILURES = (
    Status.INVALID, Status.FAILED, Status.TIMEOUT, Status.CRASHED, Status.OUT_OF_MEMORY,
)  # fmt: skip
"""Those that make `quantbench run` exit with 1."""

_STATUS = {
    Status.OK: "built, scored and timed",
    Status.NO_OP: "the tool quantized nothing: no weight in the file has the dtype that the method asks for",
    Status.SIMULATED: "no kernel executes this method as it is: built and scored for its quality, not timed",
    Status.UNSUPPORTED: "the framework or the machine cannot do this; the reason says why",
    Status.INVALID: "its outputs are not finite or far from the float model's, so it was not timed",
    Status.FAILED: "an error in the framework; the reason holds its message",
    Status.TIMEOUT: "stopped at its time limit",
    Status.CRASHED: "its process died",
    Status.OUT_OF_MEMORY: "stopped at its memory limit",
}


class Stage(StrEnum):
    """Where a status was decided."""

    BUILD = "build"
    SCORE = "score"
    CLOCK = "clock"


class Flag(StrEnum):
    """What makes a trial's numbers doubtful; ``outputs-differ`` is followed by ``-at-batch-SIZE``."""

    NOT_STEADY = "not-steady"
    SLOWER_THAN_10X = "slower-than-10x"
    HOLDS_INTEGERS = "holds-integers"
    DRIFT = "drift"
    WARMING = "warming"
    NOISY_MACHINE = "noisy-machine"
    ORDER_EFFECT = "order-effect"
    MORE_THREADS = "more-threads"
    CACHES_INPUTS = "caches-inputs"
    OUTPUTS_DIFFER = "outputs-differ"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return _FLAG[self]


_FLAG = {
    Flag.NOT_STEADY: "its times had not settled when the warm-up ended",
    Flag.SLOWER_THAN_10X: "left the timing early: more than 10× slower than the reference",
    Flag.HOLDS_INTEGERS: "its file holds integer weights although its method is a float one",
    Flag.DRIFT: "the reference's times rose or fell steadily while it was timed; ratios of rounds stand",
    Flag.WARMING: "the reference was over 3 % slower at the end of the timing than at its beginning",
    Flag.NOISY_MACHINE: "something else held the processor in over 30 % of the rounds",
    Flag.ORDER_EFFECT: "its ratio depends on whether it or the reference was timed first, by over 1 %",
    Flag.MORE_THREADS: "it used more processor time than the target has threads",
    Flag.CACHES_INPUTS: "one input repeated runs over 10 % faster than different ones: something may cache results (a short form of audit TEST04)",
    Flag.OUTPUTS_DIFFER: "outputs of the timed process differ from the scored ones (a part of audit TEST01)",
}


class Verdict(StrEnum):
    """What an interval says, on speed or on quality; ``quality_kept`` names the share that is kept."""

    FASTER = "faster"
    SLOWER = "slower"
    EQUAL = "equal within 2 %"
    LEFT = "slower, > 10x"
    KEEPS = "keeps"
    LOSES = "loses"
    UNDECIDED = "undecided"


class Division(StrEnum):
    """What an artifact was made from, in the words of MLPerf® Inference's divisions.

    `CLOSED`: the trained weights and the calibration samples alone; `OPEN`: it was retrained. That is
    one rule of several: no artifact here is a submission to either.
    Source: mlcommons/inference_policies, inference_rules.adoc, "Divisions" and "Weight Definition and
    Quantization".
    """

    CLOSED = "closed"
    OPEN = "open"


class Scenario(StrEnum):
    """In what a metric was measured; the last three are words of MLPerf® Inference, and not its rules.

    One sample a call; several; as many a call as is best for throughput. How each differs from the
    scenario of that name: docs/measuring.md. ``end-to-end`` is of samples
    alone: calls with binding and reading, in rounds of their own beside those of one of the three.
    ``confirmation``: one sample a call, timed again after it was chosen.
    """

    ARTIFACT = "artifact"
    CALIBRATION = "calibration"
    SCORE = "score"
    SEEDS = "seeds"
    MEMORY = "memory"
    START = "start"
    ENERGY = "energy"
    END_TO_END = "end-to-end"
    CONFIRMATION = "confirmation"
    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    OFFLINE = "offline"


TIMED = (Scenario.SINGLE_STREAM, Scenario.MULTI_STREAM, Scenario.OFFLINE)
"""Scenarios whose numbers are times."""


class Spread(StrEnum):
    """What ``low`` and ``high`` of a measurement mean."""

    CONFIDENCE = "95 % confidence"
    SESSION = "95 % confidence, this session"
    BOUND = "one-sided 95 % bound"
    RANGE = "range of the repetitions"
    TIE_RULES = "range over rules for ties"
