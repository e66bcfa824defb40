"""System: files, the cache, the machine, environment and locators. Standard library only."""

from quantbench.system.cache import cache_folder, content_key, entry, sweep
from quantbench.system.cpu import no_gpu, physical_cores, usable_cpus
from quantbench.system.environment import COMMON_ENVIRONMENT, ENVIRONMENT
from quantbench.system.files import (
    file_sha256,
    filling,
    is_plain,
    link_folder,
    read_json,
    stored_as,
    write_atomically,
    write_json,
)
from quantbench.system.locators import locate, locator
from quantbench.system.machine import installed_packages, package_versions
from quantbench.system.progress import PROGRESS, tell
from quantbench.system.source import source_digest

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
    "package_versions",
    "physical_cores",
    "read_json",
    "source_digest",
    "stored_as",
    "sweep",
    "tell",
    "usable_cpus",
    "write_atomically",
    "write_json",
]
