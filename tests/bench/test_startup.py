import pytest

from bench.startup import HELP_AT_MOST, startup


def test_the_commands_do_what_is_timed():
    cases = {case.name: case for case in startup(False)}
    assert list(cases) == ["python -c pass", "fastgan --version", "fastgan --help", "fastgan train --dry-run"]
    assert cases["fastgan --help"].params == {"at most": HELP_AT_MOST}
    for case in cases.values():
        if case.missing is None:
            case.verify()


def test_a_command_that_fails_does_not_verify():
    verify = next(iter(startup(False))).verify
    wrong = [*verify.args[0][:2], "raise SystemExit('no such thing')"]
    with pytest.raises(AssertionError, match="exit code 1 and said: no such thing"):
        verify.func(wrong, "")
    with pytest.raises(AssertionError, match="was to say 'Usage', and said ''"):
        verify.func(verify.args[0], "Usage")
