"""Backends: one folder per framework."""
