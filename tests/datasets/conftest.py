import pytest

from tests.datasets.made_up import isolate, server  # noqa: F401 (a fixture)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
