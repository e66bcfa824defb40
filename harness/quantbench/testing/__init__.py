"""Testing: the pytest plugin, and the sessions that tests build, score and time."""
