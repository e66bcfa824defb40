from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "tensorflow", "tf_keras", "onnxruntime", "sklearn", "pyarrow", "pandas", "PIL")


def imported_after(code: str) -> set[str]:
    """Those of the heavy packages that a fresh process has imported after running ``code``."""
    report = f"import sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_probe_sees_a_heavy_import() -> None:
    assert "PIL" in imported_after("import PIL")


def test_describing_models_and_tasks_imports_no_framework() -> None:
    code = (
        "from quantbench.backend_api import registry\n"
        "for name in ('digits', 'resnet20'): registry.model(name)\n"
        "for name in ('digits', 'cifar10'): registry.task(name)\n"
    )
    assert imported_after(code) == set()


def test_reading_the_digits_weights_imports_no_framework() -> None:
    code = (
        "from quantbench_experiments.models.digits import state, weights\nassert state(weights())\n"
    )
    assert imported_after(code) == set()
