"""System: files, the cache, the machine, environment and locators. Standard library only."""

from quantbench.system.cache import cache_folder, content_key, entry, source_digest, sweep
from quantbench.system.cpu import no_gpu, physical_cores, usable_cpus
from quantbench.system.environment import COMMON_ENVIRONMENT, ENVIRONMENT
from quantbench.system.files import (
    file_sha256,
    filling,
    is_plain,
    link_folder,
    stored_as,
    write_atomically,
    write_json,
)
from quantbench.system.locators import locate, locator
from quantbench.system.machine import installed_packages
from quantbench.system.progress import PROGRESS, tell

__all__ = [
    "COMMON_ENVIRONMENT",
    "ENVIRONMENT",
    "PROGRESS",
    "cache_folder",
    "content_key",
    "entry",
    "file_sha256",
    "filling",
    "installed_packages",
    "is_plain",
    "link_folder",
    "locate",
    "locator",
    "no_gpu",
    "physical_cores",
    "source_digest",
    "stored_as",
    "sweep",
    "tell",
    "usable_cpus",
    "write_atomically",
    "write_json",
]
