"""Sections: what each part of a page shows, a module for each."""
