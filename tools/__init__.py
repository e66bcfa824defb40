"""Tools of this repository: measure, publish and build the docs; not part of the package."""
