"""A failure shows the logs of its lab, as in tests/lab."""

from lab.conftest import logs_of_closed_labs, pytest_runtest_makereport

__all__ = ["logs_of_closed_labs", "pytest_runtest_makereport"]
