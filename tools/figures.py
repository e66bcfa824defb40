"""Figures: the numbers that README and docs quote, written from the published runs.

``python tools/figures.py write`` fills every block ``<!-- figures: NAME -->`` ... ``<!-- end -->``;
``check`` fails where a text differs from the runs; ``publish RUN FOLDER`` copies a run's tables,
machine and report (not its state and logs); ``time`` runs the quickstart from an empty cache, again,
and with ``--fresh``, publishes the first run and stores the three wall times beside it; ``diagnose``
times a diagnosis of ResNet-20 in each backend and publishes its page; ``seeds`` trains the graph network
ten times and stores its scores in every framework.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from quantbench.analysis import Gain, same_runtime, trial_rows
from quantbench.backend_api import registry
from quantbench.experiment import Experiment
from quantbench.experiment.expand import trial_of
from quantbench.report import mlperf, write_diagnosis, write_report
from quantbench.results import SCHEMAS, Results, find_run, load_results
from quantbench.runs import Reporter, score
from quantbench.spec import PRECISIONS, presets
from quantbench.stats import FIDELITY
from quantbench.studies import diagnose, requests
from quantbench.units import as_table
from quantbench_experiments.models.gcn import MODEL as GCN
from quantbench_experiments.models.gcn import SEEDS, of_seed

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # of a script only its own folder is on the path

from tools.validation import published, tools  # noqa: E402

REFERENCE = ROOT / "results" / "reference"
GRAPH_SEEDS = REFERENCE / "gcn_seeds.json"
DIAGNOSIS = REFERENCE / "diagnose_resnet20"
TEXTS = (
    "README.md", "docs/measuring.md", "docs/reference-figures.md", "docs/results.md",
    "docs/validation.md",
)  # fmt: skip
SCORES = {"top1": "top-1", "f1": "macro F1", "spearman": "Spearman", "pairs": "Spearman",
          FIDELITY: "same as fp32"}  # fmt: skip
BLOCK = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def trials(results: Results, model: str = "") -> str:
    """A Markdown table of every timed trial, fastest first; of one model where one is named.

    Speed-ups are over the float of the same runtime and graph, then over the fastest float of any
    framework, then over the reference.
    """
    known = results.trials.set_index("trial")
    wide = results.measurements.query("metric == 'latency_ms' and value == value")
    wide = wide[(wide["scenario"] != "offline") & (wide["batch_size"] == wide["batch_size"].min())]
    names = [n for n in wide.sort_values("value")["trial"] if model in ("", known.loc[n, "model"])]
    metric = SCORES[registry.task(known.loc[names[0], "task"]).metric]
    batch = int(wide["batch_size"].min())
    measured = trial_rows(results, batch)
    own = same_runtime(results, measured, batch)
    floats = [
        t for t in names if (known.loc[t, "method"], known.loc[t, "training"]) == ("fp32", "ptq")
    ]
    fastest = floats[0] if floats else ""
    references = {one.trial for one in results.references}
    reference = next((t for t in names if t in references), "")
    over = [t for t in dict.fromkeys((fastest, reference)) if t]
    titles = [f"over {known.loc[t, 'backend']} {known.loc[t, 'label']}" for t in over]
    lines = [
        f"| {' | '.join(['backend', 'method', 'ms', 'in its runtime', *titles, metric])} | drop, points | kB "
        "| integer MACs |",
        "|---" * (8 + len(over)) + "|",
    ]
    for name in names:
        trial = known.loc[name]
        speeds = ["" if name == t else ratio(results, name, t) for t in over]
        lines.append(
            f"| {trial['backend']} | {trial['label']} | {one(results, name, 'latency_ms'):.3f} "
            f"| {in_runtime(own.get(name))} | {' | '.join(speeds)} "
            f"| {one(results, name, 'quality'):.2%} | {drop(results, name)} "
            f"| {one(results, name, 'size_bytes') / 1000:.0f} "
            f"| {share(one(results, name, 'integer_macs_fraction'))} |"
        )
    text = "\n".join(lines) + "\n"
    unlike = [t for t in names if (gain := own.get(t)) is not None and not gain.like]
    return text + (
        "\n\\* Its float runs in another graph, e.g. eagerly, and the file is traced.\n"
        if unlike
        else ""
    )


def in_runtime(gain: Gain | None) -> str:
    """A speed-up in the same runtime with its interval; starred where the float runs in another graph."""
    if gain is None:
        return ""
    value, low, high = (times(x) for x in (gain.speedup.value, gain.speedup.low, gain.speedup.high))
    return f"{value}x [{low}, {high}]" + ("" if gain.like else " *")


def share(value: float) -> str:
    """A share in per cent; ``?`` where the runtime does not show it."""
    return "?" if math.isnan(value) else f"{value:.0%}"


def grouped(results: Results) -> str:
    """A table per model, and below it what did not run, with its reason."""
    parts = []
    for model in results.trials["model"].unique():
        here = results.trials[results.trials["model"] == model]
        other = here[~here["status"].isin(["ok", "no-op"])]
        reasons = "".join(
            f"- `{t.backend} {t.label}`: {t.status}, {' '.join(t.reason.split())}\n"
            for t in other.itertuples()
        )
        parts.append(
            f"**{model}**\n\n{trials(results, model)}" + (f"\n{reasons}" if reasons else "")
        )
    return "\n".join(parts)


def published_beside(results: Results) -> str:
    """Published figures and ours: quality, size and the speed-up at each batch size."""
    lines = [
        "| published | here | quality, published | here | MB, published | here "
        "| speed-up, published | here |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results.run["published"]:
        trial = row["trial"]
        known = results.trials.set_index("trial").loc[trial]
        speeds = rows(results, trial, "speedup").dropna(subset=["value"]).sort_values("batch_size")
        speeds = speeds[speeds["reference"].isin([one.trial for one in results.references])]
        ours = ", ".join(f"{s.value:.2f}x at batch {s.batch_size:.0f}" for s in speeds.itertuples())
        told = (
            f"{row['quality']:.1%}" if row["quality"] else "",
            f"{one(results, trial, 'quality'):.1%}",
            f"{row['size_bytes'] / 1e6:.2f}" if row["size_bytes"] else "",
            f"{one(results, trial, 'size_bytes') / 1e6:.2f}",
            f"{row['speedup']:.2f}x" if row["speedup"] else "",
            ours,
        )
        shown = f"{known['backend']} {known['label']}"
        lines.append(f"| {row['what']} | {shown} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def seed_claims(results: Results) -> str:
    """The figures that the course's experiment was built to reach."""
    known = results.trials.set_index("trial")
    speed = results.measurements.query("metric == 'latency_ms' and batch_size == 1").dropna(
        subset=["value"]
    )
    names = list(speed.sort_values("value")["trial"])
    # one that was trained further would have another accuracy for that reason
    best = next(
        n for n in names if known.loc[n, ["weights", "training"]].tolist() == ["int8", "ptq"]
    )
    torch = [
        n for n in names if known.loc[n, ["method", "backend"]].tolist() == ["fp32", "pytorch"]
    ]
    eager, fastest = "cifar-cnn/pytorch/fp32/cpu-1", torch[0]
    size = one(results, best, "size_bytes") / one(results, eager, "size_bytes")
    loss = rows(results, best, "quality_drop").iloc[0]
    return (
        f"- Best artifact: `{best}`, {size:.3f} of PyTorch's fp32 file, {ratio(results, best, eager)} "
        f"against PyTorch fp32 eager and {ratio(results, best, fastest)} against the fastest PyTorch fp32 "
        f"(`{fastest}`); one thread, batch 1.\n"
        f"- It {loss['verdict']} accuracy: {100 * loss['value']:.2f} points lost "
        f"[{100 * loss['low']:.2f}, {100 * loss['high']:.2f}].\n"
    )


def within(results: Results) -> str:
    """Each framework's static int8 against the fastest float32 of the same framework."""
    lines = [
        "| backend | method | times smaller | speed-up over its own fastest fp32 | drop, points |",
        "|---|---|---|---|---|",
    ]
    known = results.trials[results.trials["status"] == "ok"]
    for backend, group in known.groupby("backend", sort=False):
        floats = group[group["method"] == "fp32"]["trial"]
        fastest = min(floats, key=lambda t: one(results, t, "latency_ms"))
        size = one(results, fastest, "size_bytes")
        for trial in group[group["method"] == "static-int8"].itertuples():
            smaller = size / one(results, trial.trial, "size_bytes")
            lines.append(
                f"| {backend} | {trial.label} | {smaller:.2f}x "
                f"| {ratio(results, trial.trial, fastest)} | {drop(results, trial.trial)} |"
            )
    return "\n".join(lines) + "\n"


def reproduced() -> str:
    """Published float scores beside those of the published runs, in every framework."""
    lines = ["| model | framework | published | here | apart, points |", "|---|---|---|---|---|"]
    for experiment in ("resnets_cifar10", "mlperf_tiny", "transformers"):
        results = load_results(REFERENCE / experiment)
        for row in results.run["published"]:
            model, backend, *_ = row["trial"].split("/")
            here = one(results, row["trial"], "quality")
            lines.append(
                f"| {model} | {backend} | {row['quality']:.2%} | {here:.2%} "
                f"| {100 * abs(here - row['quality']):.2f} |"
            )
    return "\n".join(lines) + "\n"


def rows(results: Results, trial: str, metric: str) -> pd.DataFrame:
    """Measurement rows of a trial and metric."""
    found = results.measurements
    return found[(found["trial"] == trial) & (found["metric"] == metric)]


def one(results: Results, trial: str, metric: str) -> float:
    """A trial's first value of a metric."""
    return float(rows(results, trial, metric)["value"].iloc[0])


def ratio(results: Results, trial: str, reference: str = "") -> str:
    """A speed-up with its interval, like ``12.1x [11.9, 12.4]``; over the run's own reference."""
    found = rows(results, trial, "speedup")
    wanted = {reference} if reference else {one.trial for one in results.references}
    row = found[found["reference"].isin(wanted)].sort_values("batch_size").iloc[0]
    value, low, high = (times(row[column]) for column in ("value", "low", "high"))
    return f"{value}x [{low}, {high}]"


def times(ratio: float) -> str:
    """A ratio with two decimals, a small one with two digits."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def drop(results: Results, trial: str) -> str:
    """A quality drop in points with its interval; empty for the reference itself."""
    found = rows(results, trial, "quality_drop")
    if found.empty:
        return ""
    value, low, high = (100 * found[column].iloc[0] for column in ("value", "low", "high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def resnet20_claims(results: Results) -> str:
    """The figures that the ResNet-20 experiment was built to reach, each from the run."""
    speed = results.measurements.query("metric == 'latency_ms' and value == value")
    known = results.trials.set_index("trial")
    integer = [t for t in speed.sort_values("value")["trial"] if known.loc[t, "weights"] == "int8"]
    best = integer[0]
    floats = [t for t in speed["trial"] if known.loc[t, "method"] == "fp32"]
    torch = [t for t in floats if known.loc[t, "backend"] == "pytorch"]
    fastest = min(torch, key=lambda t: one(results, t, "latency_ms"))
    eager = "resnet20/pytorch/fp32/cpu-1"
    small = "resnet20/tflite/static-int8/cpu-1"
    scores = ", ".join(
        f"{known.loc[t, 'backend']} {one(results, t, 'quality'):.2%}"
        for t in known.index
        if known.loc[t, "label"] == "fp32" and t in set(speed["trial"])
    )
    compressed = one(results, small, "compression")
    return (
        f"- fp32 top-1: {scores} (published 91.73 %).\n"
        f"- Best int8 artifact: `{best}`, {ratio(results, best, eager)} against PyTorch fp32 eager, "
        f"{ratio(results, best, fastest)} against the fastest PyTorch fp32 (`{fastest}`); one "
        "thread, batch 1.\n"
        f"- Full-int8 TFLite file: {compressed:.2f}x smaller than its fp32 file.\n"
    )


def trained(results: Results) -> str:
    """A Markdown table of every training: mean over its seeds, against control and post-training."""
    lines = [
        "| backend | method | seeds | fake-quantized | converted | drop to fine-tune, points "
        "| bound, points | loss, first to last tenth | minutes a seed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (backend, label), group in trained_groups(results):
        names = list(group["trial"])
        lost = [loss(results, name) for name in names]
        first, last = (sum(part) / len(lost) for part in zip(*lost, strict=True))
        quality = [one(results, name, "quality") for name in names]
        lines.append(
            f"| {backend} | {label} | {len(names)} | {fake(results, names)} "
            f"| {mean(quality):.2%} ({', '.join(f'{q:.2%}' for q in quality)}) "
            f"| {points(results, names, 'seeds_control_drop')} "
            f"| {points(results, names, 'seeds_control_drop_bound')} "
            f"| {first:.4f} to {last:.4f} | {mean(group['trained_s']) / 60:.1f} |"
        )
    return "\n".join(lines) + "\n"


def trained_groups(results: Results) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Trials that were trained and scored, by backend and label."""
    scored = results.trials[results.trials["status"].isin(["ok", "simulated"])]
    known = scored[scored["training"] != "ptq"]
    return [(key, group) for key, group in known.groupby(["backend", "label"], sort=False)]


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean."""
    known = list(values)
    return sum(known) / len(known)


def loss(results: Results, trial: str) -> tuple[float, float]:
    """Mean loss over the first and the last tenth of a training's steps."""
    steps = results.training[results.training["trial"] == trial].sort_values("step")["loss"]
    tenth = max(len(steps) // 10, 1)
    return steps.iloc[:tenth].mean(), steps.iloc[-tenth:].mean()


def fake(results: Results, trials: list[str]) -> str:
    """Mean quality before conversion; empty where nothing was fake-quantized."""
    found = [rows(results, name, "fake_quantized_quality")["value"] for name in trials]
    return f"{mean(float(f.iloc[0]) for f in found):.2%}" if all(len(f) for f in found) else ""


def points(results: Results, trials: list[str], metric: str) -> str:
    """A metric of all seeds together, in points; it stands at the first of them."""
    found = pd.concat([rows(results, name, metric) for name in trials])
    return "" if found.empty else f"{100 * found['value'].iloc[0]:.2f}"


def methods_claims(results: Results) -> str:
    """What the methods experiment was built to show, each from the run."""
    known = results.trials.set_index("trial")
    static = known[(known["label"] == "static-int8") & (known["status"] == "ok")]
    worst = max(
        (100 * float(rows(results, t, "quality_drop")["value"].iloc[0]), t) for t in static.index
    )
    small = "resnet20/tflite/static-int8/cpu-1"
    share = 1 / one(results, small, "compression")
    built = known[["built_s", "converted_s"]].sum().sum() / 60
    start, end = (datetime.fromisoformat(results.run[key]) for key in ("created", "finished"))
    whole = (end - start).total_seconds() / 60
    return (
        f"- static-int8 loses at most {worst[0]:.2f} points against fp32 (`{worst[1]}`).\n"
        f"- Full-int8 TFLite file: {share:.3f} of its fp32 file.\n"
        f"- {len(known)} trials in {whole:.1f} minutes; their builds took {built:.1f} minutes "
        "together, two at a time.\n"
    )


def calibrators(results: Results) -> str:
    """A Markdown table of static int8 by calibrator, and what observing cost."""
    lines = [
        "| backend | ranges | calibrator | top-1 | drop, points | SQNR, dB |",
        "|---|---|---|---|---|---|",
    ]
    static = results.trials[results.trials["method"] == "static-int8"]
    for trial in static.to_dict("records"):
        name = trial["trial"]
        route = "" if trial["label"].count("route=") == 0 else f" ({trial['route']})"
        lines.append(
            f"| {trial['backend']}{route} | {trial['ranges']} | {trial['calibrator']} "
            f"| {one(results, name, 'quality'):.2%} | {drop(results, name)} "
            f"| {one(results, name, 'sqnr_db'):.1f} |"
        )
    injected = static[static["ranges"] == "injected"]
    cost = [
        f"{backend} {group['observed_s'].iloc[0]:.0f} s and "
        f"{one(results, group['trial'].iloc[0], 'observed_rss_bytes') / 1e6:.0f} MB"
        for backend, group in injected.groupby("backend", sort=False)
    ]
    count = int(injected["samples"].iloc[0])
    said = f"\nOne pass over {count} images for all calibrators, memory above the loaded model: "
    return "\n".join(lines) + "\n" + said + ", ".join(cost) + ".\n"


def samples(results: Results) -> str:
    """A Markdown table of static int8 by the number of calibration samples."""
    lines = [
        "| backend | samples | seeds | SQNR, dB: mean (least to most) | top-1: mean (least to most) |",
        "|---|---|---|---|---|",
    ]
    static = results.trials[results.trials["method"] == "static-int8"]
    for (backend, count), group in static.groupby(["backend", "samples"], sort=False):
        noise = [one(results, name, "sqnr_db") for name in group["trial"]]
        quality = [one(results, name, "quality") for name in group["trial"]]
        lines.append(
            f"| {backend} | {count} | {len(group)} "
            f"| {mean(noise):.1f} ({min(noise):.1f} to {max(noise):.1f}) "
            f"| {mean(quality):.2%} ({min(quality):.2%} to {max(quality):.2%}) |"
        )
    return "\n".join(lines) + "\n"


def drift(results: Results) -> str:
    """A Markdown table of quality and SQNR under shifted inputs, a column per shift."""
    known = results.trials[["trial", "model", "backend", "label", "samples"]]
    shifts = [m for m in dict.fromkeys(known["model"]) if not m.endswith(":recalibrated")]
    lines = [
        f"| backend | method | {' | '.join(m.partition('@')[2] or 'as trained' for m in shifts)} |",
        "|---|---|" + "---|" * len(shifts),
    ]
    for (backend, label), group in known.groupby(["backend", "label"], sort=False):
        trial = dict(zip(group["model"], group["trial"], strict=True))
        cells = [scored(results, trial[m]) for m in shifts]
        lines.append(f"| {backend} | {label} | {' | '.join(cells)} |")
        if group["samples"].iloc[0]:  # it is calibrated at all
            names = [trial.get(f"{m}:recalibrated", "") for m in shifts]
            cells = [scored(results, name) if name else "" for name in names]
            lines.append(f"| {backend} | {label}, recalibrated | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def scored(results: Results, trial: str) -> str:
    """Quality, and of a quantized trial the SQNR: ``91.75%, 29 dB``."""
    noise = one(results, trial, "sqnr_db")
    text = f"{one(results, trial, 'quality'):.2%}"
    return text if noise > 100 else f"{text}, {noise:.1f} dB"


def memory(results: Results) -> str:
    """The largest resident memory of any process that scored or timed a light runtime's artifact."""
    known = results.trials.set_index("trial")["backend"]
    found = results.measurements.query("metric == 'peak_rss_bytes'").dropna(subset=["value"])
    light = found[found["trial"].map(known).isin(["tflite", "onnxruntime"])]
    worst = light.groupby(light["trial"].map(known))["value"].max() / 1e6
    said = ", ".join(f"{backend} {mb:.0f} MB" for backend, mb in worst.items())
    return f"- Largest process that scored, timed or only loaded a digits artifact: {said}.\n"


def timings() -> str:
    """Wall times of the quickstart, as ``time`` measured them."""
    seconds = json.loads((REFERENCE / "timings.json").read_text(encoding="utf-8"))
    return "".join(f"- `{command}`: {spent:.0f} s ({note}).\n" for command, note, spent in seconds)


def time_quickstart() -> None:
    """Run the quickstart three times, publish the first run, store the wall times.

    The first needs ``--fresh`` only to start a new run beside earlier ones.
    """
    command = [
        str(Path(sys.executable).parent / "quantbench"),
        "run",
        "experiments/quickstart.yaml",
    ]
    cases = (
        (("--fresh",), "from an empty cache"),
        ((), "again: the finished run is only reported"),
        (("--fresh",), "everything timed again, artifacts and scores cached"),
    )
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "QUANTBENCH_CACHE": folder}
        for i, (options, note) in enumerate(cases):
            started = time.monotonic()
            full = [*command, *options]
            subprocess.run(full, cwd=ROOT, env=environment, check=True)  # noqa: S603 - ours
            shown = " ".join(["quantbench", *command[1:], *(options if i else ())])
            measured.append((shown, note, time.monotonic() - started))
            if i == 0:
                publish(Path("results/quickstart"), Path("results/reference/quickstart"))
    (REFERENCE / "timings.json").write_text(json.dumps(measured, indent=1), encoding="utf-8")


def score_seeds() -> None:
    """Train the graph network from ten seeds and score each in every framework; store the scores."""
    models = {model.name: model for model in map(of_seed, SEEDS)}
    one_thread = presets()["cpu-1"]
    trials = [
        trial_of(name, backend, "fp32", {}, one_thread)
        for name in models
        for backend in registry.names("backends")
    ]
    experiment = Experiment.of("seeds", trials, PRECISIONS["preview"], models=models)
    with tempfile.TemporaryDirectory() as folder, Reporter() as reporter:
        found = score(experiment, Path(folder), reporter=reporter)
    scores: dict[str, list[float]] = {}
    for trial in found.trials.itertuples():
        scores.setdefault(trial.backend, []).append(one(found, trial.trial, "quality"))
    GRAPH_SEEDS.write_text(json.dumps(scores, indent=1), encoding="utf-8")


def seeds() -> str:
    """The graph network's mean over seeds in every framework, beside the published one."""
    lines = [
        "| framework | seeds | mean | least to most | published mean |",
        "|---|---|---|---|---|",
    ]
    for backend, scores in json.loads(GRAPH_SEEDS.read_text(encoding="utf-8")).items():
        spread = f"{min(scores):.2%} to {max(scores):.2%}"
        told = f"{len(scores)} | {mean(scores):.2%} | {spread} | {GCN.published:.2%}"
        lines.append(f"| {backend} | {told} |")
    return "\n".join(lines) + "\n"


def diagnosed() -> str:
    """Wall times of a diagnosis of ResNet-20, and what it found in all backends."""
    told = json.loads((DIAGNOSIS / "timings.json").read_text(encoding="utf-8"))
    text = "".join(f"- `{command}`: {spent:.0f} s.\n" for command, spent in told["seconds"])
    pairs = ", ".join(f"{a} and {b} {value:.2f}" for a, b, value in told["agreement"])
    return f"{text}- Rank correlation of the 20 layers' sensitivities: {pairs}.\n"


def time_diagnosis() -> None:
    """Diagnose ResNet-20 in each backend from an empty cache, publish the page of all three."""
    program = str(Path(sys.executable).parent / "quantbench")
    seconds = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as results:
        environment = {**os.environ, "QUANTBENCH_CACHE": folder}
        shown = ["diagnose", "resnet20"]
        for backend in ("pytorch", "tflite", "onnxruntime"):
            started = time.monotonic()
            command = [*shown, "--backend", backend]
            subprocess.run(  # noqa: S603 - ours
                [program, *command, "--results", results], cwd=ROOT, env=environment, check=True
            )
            seconds.append((" ".join(["quantbench", *command]), time.monotonic() - started))
        (request,) = requests("resnet20", "static-int8", ("pytorch", "tflite", "onnxruntime"))
        os.environ["QUANTBENCH_CACHE"] = folder
        found = diagnose(request, results=results)
        write_diagnosis(found)
        shutil.rmtree(DIAGNOSIS, ignore_errors=True)
        DIAGNOSIS.mkdir(parents=True)
        for name in ("sensitivity.parquet", "machine.json", "diagnosis.html"):
            shutil.copyfile(found.folder / name, DIAGNOSIS / name)
        told = {"seconds": seconds, "agreement": found.agreement()}
        (DIAGNOSIS / "timings.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def validated(name: str) -> dict[str, Any]:
    """What a check of ``make validate`` left."""
    path = REFERENCE / "validation" / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def verdict(found: Mapping[str, Any]) -> str:
    """Whether a check reached its figure, and how long it took."""
    return (
        f"{'reached' if found['reached'] else '**not reached**'}, {found['seconds'] / 60:.0f} min"
    )


def validation_aa() -> str:
    """Intervals of an artifact against itself."""
    found = validated("aa")
    rows = found["rows"]
    held = sum(low <= 1 <= high for _, low, high in rows)
    width = median((high - low) / 2 / value for value, low, high in rows)
    return (
        f"{held} of {len(rows)} intervals hold 1; median half-width {width:.2%} "
        f"({verdict(found)}).\n"
    )


def validation_repeat() -> str:
    """Two runs of one experiment, and the cells that differ most."""
    found = validated("repeat")
    pairs = [
        published.Pair((trial, reference, "", None), ("the first", "the second"), (one, other))
        for trial, reference, one, other in found["rows"]
    ]
    close = sum(pair.apart <= published.CLOSE for pair in pairs)
    return (
        f"{close} of {len(pairs)} speed-ups agree within {published.CLOSE * 100:.0f} % "
        f"({verdict(found)}). Furthest apart: {published.furthest(pairs)}.\n"
    )


def validation_tools() -> str:
    """Each runtime's own tool beside us."""
    found = validated("tools")
    ratio = "ratio in turns, median" if "turns" in found else "ratio of the two medians"
    lines = [f"| tool | batch | ours, ms | theirs, ms | {ratio} |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.tool} | {row.batch_size} | {row.ours_ms:.4f} | {row.theirs_ms:.4f} | {row.ratio:.3f} |"
        for row in tools.told(found)
    ]
    kept = "" if "turns" in found else "\nThe turns of this measurement were not stored.\n"
    return "\n".join(lines) + f"\n{kept}"


def validation_busy() -> str:
    """Ratios beside a busy neighbour."""
    found = validated("busy")
    lines = [
        "| artifact | quiet | busy, interleaved | moved | busy, one after the other |",
        "|---|---|---|---|---|",
    ]
    for name, quiet in found["quiet"].items():
        busy, alone = found["busy"][name], found["sequential"][name]
        lines.append(
            f"| {name} | {quiet:.2f}x | {busy:.2f}x | {abs(busy / quiet - 1):.1%} "
            f"| {min(alone):.2f}x to {max(alone):.2f}x |"
        )
    return "\n".join(lines) + f"\n\n({verdict(found)})\n"


def validation_sessions() -> str:
    """Simulated coverage of the interval of a speed-up, by effect and number of sessions."""
    found = validated("sessions")
    counts = [key for key in found["rows"][0] if key != "effect"]
    lines = [
        "| what differs | " + " | ".join(f"{n} session{'s' * (n != '1')}" for n in counts) + " |",
        "|---|" + "--:|" * len(counts),
    ]
    for row in found["rows"]:
        lines.append(f"| {row['effect']} | " + " | ".join(f"{row[n]:.1%}" for n in counts) + " |")
    return "\n".join(lines) + f"\n\n({verdict(found)})\n"


def shared(name: str) -> str:
    """What the published runs say of each other."""
    return published.TEXTS[name](published.published())


def block(experiment: str, write: Callable[[Results], str]) -> str:
    """The text of a block from a published run."""
    return write(load_results(REFERENCE / experiment))


BLOCKS: Mapping[str, Callable[[], str]] = {
    "metrics": as_table,
    "mlperf": mlperf.as_table,
    "quickstart": lambda: block("quickstart", trials),
    "quickstart-memory": lambda: block("quickstart", memory),
    "timings": timings,
    "resnet20": lambda: block("resnet20_cifar10", trials),
    "methods": lambda: block("methods_resnet20", trials),
    "methods-claims": lambda: block("methods_resnet20", methods_claims),
    "qat": lambda: block("qat_resnet20", trained),
    "diagnosis": diagnosed,
    "validation-aa": validation_aa,
    "validation-repeat": validation_repeat,
    "validation-tools": validation_tools,
    "validation-busy": validation_busy,
    "validation-sessions": validation_sessions,
    **{f"published-{name}": partial(shared, name) for name in published.TEXTS},
    "calibrators": lambda: block("calibrators", calibrators),
    "samples": lambda: block("calibration_samples", samples),
    "drift": lambda: block("drift", drift),
    "seed-claims": lambda: block("seed_cifar10", seed_claims),
    "seed-published": lambda: block("seed_cifar10", published_beside),
    "seed": lambda: block("seed_cifar10", trials),
    "mobilenet-within": lambda: block("mobilenet_v2", within),
    "reproduced": reproduced,
    "gcn-seeds": seeds,
    **{
        name: partial(block, name, grouped)
        for name in (
            "resnets_cifar10",
            "mobilenet_v2",
            "mlperf_tiny",
            "rnn",
            "transformers",
            "gnn",
        )
    },
    "resnet20-claims": lambda: block("resnet20_cifar10", resnet20_claims),
}


def filled(text: str) -> str:
    """The text with every block as the published runs have it."""
    return BLOCK.sub(lambda m: m[1] + body(m["name"]) + m[4], text)


def body(name: str) -> str:
    """What a block holds; a check that nobody has run says so."""
    check = name.removeprefix("validation-")
    if check != name and not (REFERENCE / "validation" / f"{check}.json").exists():
        return "Not measured yet.\n"
    return BLOCKS[name]()


def publish(run: Path, folder: Path) -> None:
    """Copy a finished run's tables, machine and report."""
    source = find_run(run)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in [*(f"{n}.parquet" for n in SCHEMAS), "machine.json", "run.json"]:
        shutil.copyfile(source / name, folder / name)
    write_report(load_results(folder), folder / "report.html")


def main(arguments: list[str]) -> int:
    """Run what the first argument names; 1 where a check found a difference."""
    if arguments[:1] == ["publish"] and len(arguments) == 3:
        publish(Path(arguments[1]), Path(arguments[2]))
        return 0
    timed = {"time": time_quickstart, "diagnose": time_diagnosis, "seeds": score_seeds}
    if len(arguments) == 1 and arguments[0] in timed:
        timed[arguments[0]]()
        return 0
    if arguments not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for name in TEXTS:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = filled(old)
        if new != old and arguments == ["write"]:
            path.write_text(new, encoding="utf-8")
        elif new != old:
            stale.append(name)
    for name in stale:
        print(f"{name} differs from the published runs; run: make figures", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
