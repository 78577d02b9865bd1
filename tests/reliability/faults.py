"""Faults at the calls by which ``fastgan.files`` writes: each can fail, be the process's last, or be written down."""

import errno
import os
import signal

from fastgan import files

# Every call that changes something on the disk. There is no flush among them: nothing is buffered on the way.
CALLS = ("open", "write", "fsync", "link", "replace")
ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EROFS", "EDQUOT", "EIO")}


class Fault:
    """Lets every call through, and counts them."""

    def __init__(self):
        self.count = 0

    def call(self, name, function, *arguments):
        self.count += 1
        return self.meet(name, function, *arguments)

    def meet(self, name, function, *arguments):
        return function(*arguments)


class Refuse(Fault):
    """One call, or every call from it on, fails with an error of the system's; a write is half done before."""

    def __init__(self, number, error, *, for_good=False):
        super().__init__()
        self.number, self.error, self.for_good = number, error, for_good

    def meet(self, name, function, *arguments):
        if self.count == self.number or (self.for_good and self.count > self.number):
            if name == "write":
                function(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise OSError(self.error, os.strerror(self.error))
        return function(*arguments)


class Kill(Fault):
    """The process ends at one call, as by kill -9: a write is half done."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def meet(self, name, function, *arguments):
        if self.count == self.number:
            if name == "write":
                function(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)


class Record(Fault):
    """Writes down what is done, in names: ("write", name, bytes), ("fsync", name or "."), ("replace", from, to) …"""

    def __init__(self):
        super().__init__()
        self.events, self._names = [], {}

    def meet(self, name, function, *arguments):
        result = function(*arguments)
        if name == "open":
            self._names[result] = "." if os.path.isdir(arguments[0]) else os.path.basename(arguments[0])
            if arguments[1] & os.O_EXCL:
                self.events.append(("create", self._names[result]))
        elif name == "write":
            self.events.append(("write", self._names[arguments[0]], bytes(arguments[1][:result])))
        elif name == "fsync":
            self.events.append(("fsync", self._names[arguments[0]]))
        elif name in ("link", "replace"):
            self.events.append((name, *(os.path.basename(path) for path in arguments[:2])))
        return result


class _Os:
    def __init__(self, fault):
        self._fault = fault

    def __getattr__(self, name):
        real = getattr(os, name)
        return (lambda *arguments: self._fault.call(name, real, *arguments)) if name in CALLS else real


def install(fault):
    """Put a fault in the way of ``fastgan.files``; gives it back."""
    files.os = _Os(fault)
    return fault


def remove():
    files.os = os
