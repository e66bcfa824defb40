"""Models that ship with quantbench."""
