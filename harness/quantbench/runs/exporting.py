"""Export: a trial's deployable files, copied out of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

from quantbench.backend_api import Artifact
from quantbench.errors import BadInput, did_you_mean
from quantbench.results import load_results, trial_row
from quantbench.runs.store import Store
from quantbench.system import entry


def export(run: Path, trial: str, output: Path) -> list[Path]:
    """Copy the artifact of ``trial``; returns what was written.

    One file goes to ``output`` itself (or into it, if it is a folder); several go into the folder
    ``output``.

    Raises
    ------
    BadInput
        For an unknown trial, one without an artifact, or an unwritable ``output``.
    """
    results = load_results(run)
    row = trial_row(results.trials, trial)
    if row is None:
        raise BadInput(
            f"no trial '{trial}' in {run}.{did_you_mean(trial, results.trials['trial'])}"
        )
    if not row.artifact:
        raise BadInput(f"trial '{trial}' has no artifact ({row.status}: {row.reason})")
    kept = (Store(results.folder).artifact(row.artifact), entry("artifacts", row.artifact))
    folder = next((place for place in kept if place.exists()), None)
    if folder is None:
        raise BadInput(
            f"the run keeps no artifact of '{trial}' and it is not in the cache; "
            "run the experiment again with --fresh"
        )
    artifact = Artifact.open(folder)
    several = len(artifact.files) > 1 or output.is_dir()
    written = []
    try:
        (output if several else output.parent).mkdir(parents=True, exist_ok=True)
        for name in artifact.files:
            target = output / name if several else output
            shutil.copyfile(artifact.folder / name, target)
            written.append(target)
    except OSError as error:
        raise BadInput(f"cannot write {output} ({error.strerror})") from error
    return written
