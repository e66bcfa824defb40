"""Execution of the tutorial notebook: ``python tools/execute.py`` writes its outputs back in place.

It runs in an empty folder, with the interpreter that runs this file as its kernel. What would
differ from one machine or minute to the next without being a result (folders, times of execution,
progress on standard error) is not stored.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
LIMIT_S = 840
"""Of one cell."""


def executed(notebook: NotebookNode, folder: Path, more: Sequence[str] = ()) -> NotebookNode:
    """The notebook after a run in ``folder``, then of the code in ``more``, in cells at its end.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    RuntimeError
        If a figure cannot be drawn.
    """
    copy = nbformat.from_dict(notebook)
    copy.cells += [nbformat.v4.new_code_cell(source) for source in more]
    # no installed kernel is looked for: that leaves the one of this interpreter
    kernels = KernelSpecManager(kernel_dirs=[])
    client = NotebookClient(
        copy,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=kernels),
        timeout=LIMIT_S,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    environment = {
        **os.environ,
        "IPYTHONDIR": str(folder / ".ipython"),  # not the user's start-up files
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client.execute(env=environment, cleanup_kc=True)  # ends the kernel
    for cell in copy.cells:
        for output in cell.get("outputs", ()):
            # a figure that cannot be drawn fails after its cell, which counts as done
            if output.output_type == "error":
                raise RuntimeError(f"{output.ename}: {output.evalue}, in: {cell.source}")
    return copy


def stored(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it is kept: without standard error and without what only describes the run."""
    copy = nbformat.from_dict(notebook)
    copy.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for cell in copy.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return copy


def main() -> None:
    """Execute the notebook and write it back."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(stored(executed(notebook, Path(folder))), NOTEBOOK)


if __name__ == "__main__":
    main()
