"""Validation: what the numbers are worth, measured on the machine at hand (``make validate``)."""
