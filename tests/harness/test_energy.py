"""Energy: counters of an invented machine, every refusal, and a run with a meter of known power."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from quantbench import run
from quantbench.runs import energy
from quantbench.runs.energy import NoMeter, Rapl, Window

WATTS = 5.0


def zone(root: Path, name: str, kind: str, joules: float, most: float = 1000.0) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{kind}\n")
    (folder / "max_energy_range_uj").write_text(f"{int(most * 1e6)}\n")
    (folder / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return folder / "energy_uj"


def test_packages_and_memory_are_counted_and_no_joule_twice(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", "package-0", 10)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 7)  # part of the package
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 3)
    zone(tmp_path, "intel-rapl:1", "psys", 99)  # the whole board, packages again
    found = Rapl.find(tmp_path)
    before = found.read()
    for file, joules in ((package, 12), (core, 9), (dram, 3.5)):
        file.write_text(str(int(joules * 1e6)))

    assert found.domains == ("package-0 (intel-rapl:0)", "dram (intel-rapl:0:1)")
    assert found.spent(before, found.read()) == pytest.approx(2.5)


def test_a_counter_that_starts_again_is_followed(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 998, most=1000)
    found = Rapl.find(tmp_path)
    before = found.read()
    file.write_text(str(int(3e6)))

    assert found.spent(before, found.read()) == pytest.approx(5)


@pytest.mark.parametrize(("virtual", "code"), [("none", "no-powercap"), ("KVM", "virtual-machine")])
def test_a_machine_without_counters_says_why(tmp_path, virtual, code):
    with pytest.raises(NoMeter, match=code):
        Rapl.find(tmp_path, virtual)


def test_counters_for_root_alone_are_refused(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    with pytest.raises(NoMeter, match="permission-denied"):
        Rapl.find(tmp_path)


def test_windows_must_be_asked_for_and_long_and_the_socket_ours(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(Rapl, "find", classmethod(lambda cls: cls((), (), ())))
    loads = [0.0]
    monkeypatch.setattr(os, "getloadavg", lambda: (loads[0], 0, 0))

    for seconds, code in ((0.0, "not-asked"), (2.0, "window-too-short")):
        with pytest.raises(NoMeter, match=code):
            energy.meter("cpu", seconds)
    assert energy.meter("cpu", 10.0) == Rapl((), (), ())
    loads[0] = 1.0 * (os.cpu_count() or 1)
    with pytest.raises(NoMeter, match="shared-socket"):
        energy.meter("cpu", 10.0)


def test_energy_net_of_idle_by_hand():
    window = Window("x", joules=60.0, seconds=10.0, inferences=1000, idle_w=4.0)

    assert window.per_inference == 0.06
    assert window.net == pytest.approx(0.02)


class Steady:
    """A machine that takes the same power whatever it does, and more while it works."""

    domains = ("bench",)

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def read(self) -> tuple[int, ...]:
        return (int(time.monotonic() * WATTS * self.factor * 1e6),)

    def spent(self, before, after) -> float:
        return (after[0] - before[0]) / 1e6


def energies(experiment_file, fakery, monkeypatch, meter):
    monkeypatch.setattr(energy, "meter", lambda device, window_s: meter)
    precision = "{name: short, generations: 1, max_generations: 1, rounds: 2, warmup_s: 0.01,"
    precision += " burst_ms: 1.0, energy_window_s: 0.3, energy_windows: 2}"
    path = experiment_file("[fp32, static-int8]", precision=precision)
    return run(path, results=fakery / "results")


@pytest.mark.long
def test_joules_times_throughput_are_the_meters_watts(experiment_file, fakery, monkeypatch):
    found = energies(experiment_file, fakery, monkeypatch, Steady())

    rows = found.measurements[found.measurements["scenario"] == "energy"]
    assert set(rows["metric"]) == {"energy_j", "energy_net_j"}
    assert set(rows["trial"]) == set(found.trials["trial"])
    assert (rows["n"] == 2).all()
    whole = rows[rows["metric"] == "energy_j"].set_index("trial")
    net = rows[rows["metric"] == "energy_net_j"].set_index("trial")
    assert (whole["low"] <= whole["value"]).all()
    assert (whole["value"] <= whole["high"]).all()
    # it takes no more while it works than idling, but for answering
    assert (net["value"].abs() < 0.3 * whole["value"]).all()
    assert (whole["value"] > 0).all()


@pytest.mark.long
def test_a_counter_that_stands_still_is_no_energy(experiment_file, fakery, monkeypatch):
    found = energies(experiment_file, fakery, monkeypatch, Steady(factor=0.0))

    rows = found.measurements[found.measurements["scenario"] == "energy"]
    assert rows["value"].isna().all()
    assert set(rows["reason"]) == {"counter-stuck"}


def test_energy_that_nobody_asked_for_is_null_with_its_code(experiment_file, fakery):
    found = run(experiment_file("[fp32]"), results=fakery / "results")

    rows = found.measurements[found.measurements["scenario"] == "energy"]
    assert list(rows["reason"]) == ["not-asked", "not-asked"]
    assert rows["value"].isna().all()


def test_every_code_has_words():
    text = Path(energy.__file__).read_text(encoding="utf-8")
    for code in energy.REASONS:
        assert text.count(f'"{code}"') > 1, code
