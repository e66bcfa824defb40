"""Tasks that ship with quantbench."""
