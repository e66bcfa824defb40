"""The models, tasks and experiments that quantbench comes with."""

from pathlib import Path

_HERE = Path(__file__).parent
# in a checkout the sweeps lie beside this package, in a wheel inside it
SWEEPS = _HERE / "sweeps" if (_HERE / "sweeps").is_dir() else _HERE.parent
"""The folder of the experiment files (YAML)."""
