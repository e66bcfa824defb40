"""MFCC: the features of MLPerf Tiny's keyword spotting, from sound."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct
from scipy.signal import get_window

from quantbench.spec import Array

RATE = 16_000
FRAMES, COEFFICIENTS = 49, 10
WINDOW, HOP, FFT, BANDS = 480, 320, 512, 40
LOWEST_HZ, HIGHEST_HZ = 20.0, 4000.0


def mfcc(sound: Array) -> Array:
    """Coefficients float32 [49, 10] of one second: float [16000] at 16 kHz, its highest value 1.

    Source: get_dataset.py of MLPerf Tiny's keyword spotting, which calls tf.signal: windows of 30 ms
    every 20 ms, magnitudes in 40 bands of the HTK mel scale, their logarithm, DCT of type 2.
    """
    starts = np.arange(FRAMES) * HOP
    windows = sound[starts[:, None] + np.arange(WINDOW)] * get_window("hann", WINDOW)
    magnitude = np.abs(np.fft.rfft(windows, FFT))
    bands = np.log(magnitude @ _filters().T + 1e-6)
    found: Array = dct(bands, type=2)[:, :COEFFICIENTS] / np.sqrt(2 * BANDS)
    return found.astype(np.float32)


def _mel(hertz: Array) -> Array:
    scaled: Array = 1127 * np.log1p(hertz / 700)
    return scaled


def _filters() -> Array:
    """Weights [40, 257] of triangles that are straight on the mel scale, as tf.signal has them."""
    lowest, highest = _mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edges = np.linspace(lowest, highest, BANDS + 2)
    bins = _mel(np.fft.rfftfreq(FFT, 1 / RATE))
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights: Array = np.maximum(
        0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    )
    weights[:, 0] = 0  # tf.signal leaves the constant part out
    return weights
