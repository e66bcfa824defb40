"""Glossary: what the words, statuses and columns of a report mean, and how each was measured."""

from __future__ import annotations

from collections.abc import Mapping

from quantbench.spec import Flag, Status, Verdict
from quantbench.units import METRICS

STATUS_MEANING: Mapping[str, str] = {status: status.meaning for status in Status}
STATUS_MARK: Mapping[str, str] = {
    Status.OK: "✓", Status.NO_OP: "=", Status.SIMULATED: "~", Status.UNSUPPORTED: "–",
}  # fmt: skip

FLAG_MEANING: Mapping[str, str] = {flag: flag.meaning for flag in Flag}

VERDICT_MEANING: Mapping[str, str] = {
    Verdict.FASTER: "the interval of the speed-up lies above 1, by more than the noise",
    Verdict.SLOWER: "the interval of the speed-up lies below 1, by more than the noise",
    "equal within 2 %": "the whole interval lies within 2 % of the reference",
    "undecided (speed)": "the interval is too wide to say",
    Verdict.KEEPS: "the loss is below the margin of the experiment with 95 % confidence",
    Verdict.LOSES: "the loss is above the margin with 95 % confidence",
    "undecided (quality)": "the test samples are too few to say",
}

VERDICT_TONE: Mapping[str, str] = {Verdict.KEEPS: "good", Verdict.LOSES: "bad"}

TERMS: Mapping[str, str] = {
    "Trial": "one model quantized with one method by one backend, run on one target.",
    "Method": "what is quantized and how; a preset name, with the axes that were changed after a +.",
    "Backend": "a framework's quantizer with its runtime.",
    "Target": "the hardware and settings that the artifact runs on.",
    "Reference": "the fp32 trial that speed-up, loss, agreement and SQNR are relative to.",
    "Interval": "the range in small print holds the true value with 95 % confidence.",
    "Latency": "median time of the inference call alone, one process at a time; inputs are bound before the clock starts and outputs are read after it stops.",
    "Speed-up": "time of the reference divided by the time of the trial, paired in interleaved rounds of several fresh processes; above 1× is faster.",
    "Quality": "the task's own score on the test split (top-1 accuracy for a classifier), with Wilson's interval where it is a share.",
    "Loss": "quality of the reference minus quality of the trial on the same samples, in percentage points, with the paired Bonett-Price interval; a negative loss is a gain.",
    "At most": "the one-sided 95 % upper bound of the loss; the recommendation is judged by it.",
    "Agreement": "share of test samples on which the trial gives the answer of the float reference, right or wrong.",
    "SQNR": "power of the float outputs over the power of their error, in decibels; 6 dB is one bit.",
    "Size": "bytes of all files needed at run time; 1 kB is 1000 bytes.",
    "Integer MACs": "share of the multiply-accumulates that the runtime really executes on integers.",
    "Memory": "peak resident memory of a fresh process that loads the artifact and runs it, runtime included.",
    "Load": "time from the file to a session that is ready to run.",
    "Single-stream": "one sample a call. A word of the MLPerf® Inference benchmarks, which measure it in another way: see the footnote.",
    "Multi-stream": "a batch of several samples a call. Likewise.",
    "Offline": "each artifact at the batch size of its highest throughput. Likewise.",
    "Closed, open": "made of the trained weights and calibration samples alone, or retrained; by no other rule of the divisions of that name.",
    "Generation": "one fresh process per artifact; a comparison has several, because two processes of the same file differ.",
    "Round": "every process runs one burst, in random order, so that a slow moment of the machine hits all alike.",
    "A/A control": "the reference timed a second time under another name: what it differs from itself is noise.",
    "Pareto front": "the trials that no other trial beats in both latency and quality.",
    **{spec.title: spec.help + "." for spec in METRICS.values() if spec.title},
}
