"""Environment: the variables that are set before a worker starts."""

from __future__ import annotations

from collections.abc import Mapping

# The same for every process that scores or times, whatever its runtime. glibc returns freed
# memory to the kernel at once by default; PyTorch fp32 at batch 32 is 2x slower for it.
COMMON_ENVIRONMENT: Mapping[str, str] = {
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "PYTHONHASHSEED": "0",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


# One thread each: builds run side by side, and sums in another order would give other bytes.
ENVIRONMENT: Mapping[str, str] = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
