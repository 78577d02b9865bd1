import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_python_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert '"epochs": 100' in code
    code = code.replace('"epochs": 100', '"epochs": 2')
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"-?\d+\.\d ± \d+\.\d nats at sigma 0\.\d+\n", done.stdout)
    assert (tmp_path / "runs" / "00001-digits-seed1" / "report.html").exists()


def test_the_readmes_commands_are_there():
    from fastgan.cli import COMMANDS

    named = set(re.findall(r"^    fastgan (\w+)", README.read_text("utf-8"), re.MULTILINE))
    assert {"train", "sample", "parzen"} <= named <= set(COMMANDS)


def test_the_readmes_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)\)", README.read_text("utf-8")):
        assert (README.parent / link).exists(), link
