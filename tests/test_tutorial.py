"""The tutorial notebook: it runs from nothing, what its text claims holds, and it names no machine."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOK = DOCS / "tutorial.ipynb"
PICTURES = {"1": 2, "2": 3, "3": 2, "5": 2}
"""Least number of pictures by the number of a section."""

FACTS = """
import json

by_label = frame.set_index("trial")
print(json.dumps({
    "formats": {
        name: value_of(bits_of(number, dtype), e, f) == torch.tensor(number).to(dtype).item()
        for name, (dtype, e, f) in FORMATS.items()
    },
    "half_a_step": float(np.abs(error).max() / int8.scale),
    "staircase": float(np.abs(staircase - x)[(x > low) & (x < high)].max() / scale),
    "used": {f"{what}, {way}": n for (what, way), n in used.items()},
    "sqnr": ratio,
    "ranges": {f"{name}, {c}": found for (name, c), found in ranges.items()},
    "narrow": [
        estimate(histogram, replace(static, calibrator="mse"), levels=n)[1] for n in (16, 256)
    ],
    "status": results.trials["status"].value_counts().to_dict(),
    "drop": by_label[["quality_drop", "quality_drop_low", "quality_drop_high"]].T.to_dict("list"),
    "integer": by_label["integer_macs_fraction"].to_dict(),
    "own": own[["value", "low", "high"]].T.to_dict("list"),
    "chosen": choice.trial,
    "bound": float(chosen["quality_drop_bound"]),
    "strict": strict.trial,
    "reference": by_label.index[by_label["is_reference"].astype(bool)].tolist(),
    "causes": [cause.name for cause in explanation.possible],
    "exported": written.stat().st_size == int(chosen["size_bytes"]),
}))
"""


@pytest.fixture(scope="module")
def execute():
    from tools import execute

    return execute


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(execute, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTBENCH_CACHE", str(folder / "cache"))
        (folder / "empty").mkdir()
        return execute.executed(notebook, folder / "empty", [FACTS])


@pytest.fixture(scope="module")
def facts(executed):
    return json.loads(executed.cells[-1].outputs[0].text)


def sections(notebook) -> dict[str, list]:
    """Cells by the number of their section, "" before the first."""
    found: dict[str, list] = {"": []}
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (title := re.search(r"^## (\d+) ", cell.source, re.M)):
            found[title[1]] = []
        found[list(found)[-1]].append(cell)
    return found


def pictures(cells) -> int:
    return sum("image/png" in out.get("data", {}) for c in cells for out in c.get("outputs", ()))


def words(notebook) -> str:
    """All that is stored but the bytes of pictures."""
    bare = nbformat.from_dict(notebook)
    for cell in bare.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/png", None)
    return nbformat.writes(bare)


def named_machines(text: str) -> list[str]:
    host = socket.gethostname()
    places = r"(?:^|[\s\"'(=:])(/(?:tmp|work|root|home|opt|usr|var)/[^\s\"']*)"
    return re.findall(places, text) + ([host] if len(host) > 6 and host in text else [])


# --- as it is stored -----------------------------------------------------------------------------


def test_the_notebook_is_stored_as_it_ran_from_top_to_bottom(stored):
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]

    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
    assert all(cell.metadata == {} for cell in stored.cells)
    assert NOTEBOOK.stat().st_size < 900_000


def test_each_section_has_the_pictures_it_promises(stored):
    found = sections(stored)

    assert list(found) == ["", "1", "2", "3", "4", "5", "6", "7"]
    assert {n: pictures(cells) for n, cells in found.items() if n in PICTURES} == {
        n: max(least, pictures(found[n])) for n, least in PICTURES.items()
    }


def test_what_is_stored_names_no_machine(stored):
    assert named_machines(words(stored)) == []


def test_a_folder_in_an_output_is_noticed():
    assert named_machines('"text": "/tmp/abc/report.html"') == ["/tmp/abc/report.html"]  # noqa: S108


def test_links_of_the_notebook_exist(stored):
    text = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    titles = {re.sub(r"\s+", "-", t) for t in re.findall(r"^#+ (.+)$", text, re.M)}

    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        assert (DOCS / link).exists(), link
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in titles, anchor


def test_what_only_describes_a_run_is_not_stored(execute):
    cell = nbformat.v4.new_code_cell(
        "1", metadata={"execution": {"iopub.execute_input": "2026-01-01"}},
        outputs=[
            nbformat.v4.new_output("stream", name=name, text=name) for name in ("stdout", "stderr")
        ],
    )  # fmt: skip
    info = {"name": "python", "version": "3.11.7"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": info})

    kept = execute.stored(notebook)

    assert [out.name for out in kept.cells[0].outputs] == ["stdout"]
    assert kept.cells[0].metadata == {}
    assert kept.metadata.language_info == {"name": "python"}


@pytest.mark.slow
def test_the_kernel_is_this_interpreter_and_a_figure_that_cannot_be_drawn_fails(execute, tmp_path):
    draw = "import matplotlib.pyplot as plt\nplt.figure().text(0, 0, '$\\\\nothing$')"
    code = nbformat.v4.new_code_cell("import sys; print(sys.executable, end='')")

    found = execute.executed(nbformat.v4.new_notebook(cells=[code]), tmp_path)

    assert found.cells[0].outputs[0].text == sys.executable
    with pytest.raises(RuntimeError, match="nothing"):
        execute.executed(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(draw)]), tmp_path
        )


# --- as it runs ----------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_notebook_runs_from_nothing_and_draws_its_pictures(execute, executed):
    found = sections(executed)

    assert all(pictures(found[n]) >= least for n, least in PICTURES.items())
    assert named_machines(words(execute.stored(executed))) == []


@pytest.mark.long
def test_the_bits_and_the_steps_are_what_the_text_says(facts):
    assert facts["formats"] == {"fp32": True, "fp16": True, "bf16": True}
    assert facts["half_a_step"] <= 0.5 + 1e-4  # an error is itself rounded to float32
    assert facts["staircase"] <= 0.5 + 1e-4
    assert facts["used"]["activation after ReLU, symmetric"] <= 128
    assert facts["used"]["activation after ReLU, asymmetric"] > 128
    assert facts["sqnr"]["per-channel"] > facts["sqnr"]["per-tensor"]


@pytest.mark.long
def test_calibrators_clip_as_the_text_says(facts):
    for name in ("blocks.4.conv1", "blocks.2.conv2"):
        widest = facts["ranges"][f"{name}, minmax"]
        for calibrator in ("percentile", "mse"):
            low, high = facts["ranges"][f"{name}, {calibrator}"]
            assert widest[0] <= low
            assert high < widest[1]
    four, eight = facts["narrow"]
    assert four < 0.75 * eight


@pytest.mark.long
def test_the_trials_behave_as_the_text_says(facts):
    backends = ("pytorch", "tflite", "onnxruntime")

    assert facts["status"] == {"ok": 16, "simulated": 2}
    for backend in backends:
        assert facts["integer"][f"digits/{backend}/static-int8/cpu-1"] == 1
        for method in ("dynamic-int8", "static-int8"):
            _, low, high = facts["drop"][f"digits/{backend}/{method}/cpu-1"]
            assert low <= 0 <= high
    assert facts["integer"]["digits/pytorch/dynamic-int8/cpu-1"] < 0.01
    [four] = [d for t, d in facts["drop"].items() if "/static-int8+weights=int4" in t]
    assert four[0] > 0
    assert facts["own"]["digits/onnxruntime/dynamic-int8/cpu-1"][2] < 1
    assert facts["causes"][0] == "dynamic-convolutions"


@pytest.mark.long
def test_the_choice_is_within_the_limit_and_the_strict_one_is_the_reference(facts):
    assert facts["bound"] <= 0.01
    assert facts["own"][facts["chosen"]][1] > 1
    assert [facts["strict"]] == facts["reference"]
    assert facts["exported"]
