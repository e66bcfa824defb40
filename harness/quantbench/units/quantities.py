"""Quantities as people read them: times, sizes, shares and ratios, with their intervals."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from quantbench.stats import Interval

MISSING = "–"
ABOUT = "about "
"""Before a value whose interval is not known, where others have one."""

Formatter = Callable[[float], str]


def number(x: float, digits: int = 3) -> str:
    """``x`` with so many significant digits, without an exponent.

    >>> [number(x) for x in (0.083449, 1.5, 123.4, 98765.0)]
    ['0.0834', '1.50', '123', '98765']
    """
    if not math.isfinite(x):
        return "∞" if x > 0 else ("−∞" if x < 0 else MISSING)
    if x == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{x:.{places}f}".replace("-", "−")


def milliseconds(x: float) -> str:
    """A time given in milliseconds.

    >>> milliseconds(0.083449)
    '0.0834 ms'
    """
    return f"{number(x)} ms"


def joules(x: float) -> str:
    """An energy given in joules.

    >>> joules(0.000342), joules(1.5)
    ('342 µJ', '1.50 J')
    """
    for unit, scale in (("J", 1.0), ("mJ", 1e-3)):
        if abs(x) >= scale:
            return f"{number(x / scale)} {unit}"
    return f"{number(x / 1e-6)} µJ"


def seconds(x: float) -> str:
    """A time given in seconds.

    >>> seconds(0.1234), seconds(12.34), seconds(754.0)
    ('0.12 s', '12.3 s', '12.6 min')
    """
    if x >= 120:
        return f"{x / 60:.1f} min"
    return f"{x:.1f} s" if x >= 9.95 else f"{x:.2f} s"


def size(x: float) -> str:
    """Bytes, in decimal units as files are sold and downloaded.

    >>> [size(x) for x in (712, 92_300, 1_234_567)]
    ['712 B', '92.3 kB', '1.23 MB']
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(x) >= scale:
            return f"{number(x / scale)} {unit}"
    return f"{x:.0f} B"


def per_second(x: float) -> str:
    r"""Samples a second.

    >>> per_second(81.4), per_second(12_345.0), per_second(2_500_000.0)
    ('81.4/s', '12\u202f300/s', '2\u202f500\u202f000/s')
    """
    if not math.isfinite(x) or x < 1000:
        return f"{number(x)}/s"
    digits = math.floor(math.log10(x)) - 2
    return f"{round(x / 10**digits) * 10**digits:,.0f}/s".replace(",", "\u202f")


def percent(x: float) -> str:
    """A share; one that is neither none nor all never reads as such.

    >>> percent(0.9888), percent(0.0), percent(0.0002), percent(0.9998)
    ('98.9 %', '0.0 %', '<0.1 %', '>99.9 %')
    """
    if 0 < x < 0.0005:
        return "<0.1 %"
    return ">99.9 %" if 0.9995 <= x < 1 else f"{100 * x:.1f} %"


def points(x: float) -> str:
    """A difference of shares, in percentage points.

    >>> points(0.00334)
    '0.33 pp'
    """
    return f"{_signless_zero(100 * x, 2)} pp"


def ratio(x: float) -> str:
    """How many times.

    >>> ratio(11.76), ratio(0.4), ratio(0.0127)
    ('11.8×', '0.40×', '0.013×')
    """
    if not math.isfinite(x):
        return number(x)
    if 0 < x < 0.0995:
        return f"{x:.2g}×"
    return f"{x:.0f}×" if x >= 99.5 else (f"{x:.1f}×" if x >= 9.95 else f"{x:.2f}×")


def decibels(x: float) -> str:
    """A signal-to-noise ratio; infinite where the outputs are identical."""
    return "identical" if x == math.inf else f"{number(x)} dB"


def quality_writer(unit: str) -> Formatter:
    """How a quality of that unit is written."""
    return percent if unit in ("", "fraction") else plain


def loss_writer(unit: str) -> Formatter:
    """How a loss of quality is written, by the unit of the quality."""
    return points if unit in ("", "fraction") else plain


def text_of(value: Any) -> str:
    """A value as text; a null of JSON or Parquet is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def place_name(model: str, target: str) -> str:
    """Where a comparison was made."""
    return f"{one_line(model)} on {one_line(target)}"


def plain(x: float) -> str:
    """A quality that is not a share (a negative squared error, a correlation)."""
    return number(x, 4)


def _signless_zero(x: float, places: int) -> str:
    text = f"{x:.{places}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def span(interval: Interval, formatter: Formatter, *, unit: bool = True) -> str:
    """The ends of an interval, the unit once or not at all; empty where an end is unknown.

    >>> span(Interval(2.0, 1.5, 2.5), ratio)
    '1.50 to 2.50×'
    """
    low, high = interval.low, interval.high
    if math.isnan(low) or math.isnan(high):
        return ""
    if math.isinf(low) or math.isinf(high) or (low <= 0 and high == math.inf):
        return "interval unknown"
    first, last = formatter(low), formatter(high)
    tail = re.search(r"[^\d.]*$", last)
    suffix = tail.group() if tail else ""
    shown = last if unit else last.removesuffix(suffix)
    return f"{first.removesuffix(suffix)} to {shown}"


def one_line(text: str, limit: int = 0) -> str:
    r"""Any text made fit to be shown: no control characters, white space folded, at most ``limit``.

    Characters that change the direction of text are dropped: a name must not turn its neighbours.

    >>> one_line(" a\n\x07b ", 0), one_line("abcdef", 4)
    ('a b', 'abc…')
    """
    folded = " ".join(str(text).split())
    clean = "".join(c for c in folded if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    return clean if not limit or len(clean) <= limit else clean[: limit - 1] + "…"
