import json

import fastgan
from tests.runs_for_tests import invoke


def test_versions_and_backends_are_shown_with_the_reason_of_those_that_do_not_run():
    lines = invoke("info").stdout.splitlines()
    assert lines[0].split() == ["fastgan", fastgan.__version__]
    shown = {line.split()[0]: line for line in lines}
    assert {"python", "numpy", "scipy", "numba", "h5py", "system"} <= shown.keys()
    assert shown["cpu"].endswith("runs here, and is what auto takes")
    for name in ("cupy", "numba-cuda", "cpu"):
        assert "runs here" in shown[name] or "does not run here: " in shown[name]


def test_json_holds_the_same():
    report = json.loads(invoke("info", "--json").stdout)
    assert report.keys() == {"versions", "system", "cores", "auto", "backends"}
    assert report["backends"].keys() == {"cupy", "numba-cuda", "cpu", "reference"}
    assert report["versions"]["fastgan"] == fastgan.__version__
