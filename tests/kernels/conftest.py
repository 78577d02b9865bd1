"""What of this folder pytest is to leave alone when it looks for doctests, and what it is to start before all tests."""

# Files for processes of their own.
collect_ignore = ["compile_numba_cuda.py", "simulated_numba_cuda.py"]


def pytest_collection_finish(session):
    """Start the processes of ``test_numba_cuda.py``, which take a minute by themselves, to run beside other tests."""
    waiting = (item for item in session.items if "numba_processes" in getattr(item, "fixturenames", ()))
    first = next(waiting, None)
    if first is not None and not session.config.option.collectonly:
        processes = first.module.started().values()
        session.config.add_cleanup(lambda: [process.kill() or process.communicate() for process in processes])
