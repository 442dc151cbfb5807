"""The tests. This folder alone is a package, so that every test can import `tests.processes`; those below are not."""
