"""What signals do to the running process.

SIGTERM and SIGINT stop the service, which lets responses end first; a second one ends the process at once, whatever it is
doing.  SIGHUP means that the terminal is gone: it stops the service too where there is one.  A process without a terminal, such
as a daemon or one in a container, is sent it by those who expect that it reads its configuration again, which it does.
A signal that the process was started to ignore stays ignored.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.logger import Logger

_log = Logger(namespace="proxy.service")


def heed_signals(reactor: Any, reload: Callable[[], None]) -> None:
    """Let signals do what this module says, once *reactor* runs (and has set its own handlers, which these go on to).

    *reload* reads the configuration again.
    """
    terminal = _has_terminal()

    def stop(number: int, frame: FrameType | None) -> None:
        # From here on the system itself ends the process, which also works while the reactor is waiting for something.  But it
        # never ends the first process of a container.
        again = _end if os.getpid() == 1 else signal.SIG_DFL
        signal.signal(signal.SIGTERM, again)
        signal.signal(signal.SIGINT, again)
        if number == signal.SIGHUP:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a shell that ends sends it, and the kernel for the shell
            reactor.callFromThread(_log.info, "SIGHUP: the terminal is gone, stopping")
            reactor.callFromThread(reactor.stop)
        else:
            then = after[signal.Signals(number)]
            if callable(then):
                then(number, frame)

    def read_again(number: int, frame: FrameType | None) -> None:
        reactor.callFromThread(reload)

    # A shell has SIGINT ignored by what it starts with & in a script; twisted leaves that as it is too.
    heeded = [each for each in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(each) is not signal.SIG_IGN]
    after = {each: signal.signal(each, stop) for each in heeded}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup(1) has it ignored
        signal.signal(signal.SIGHUP, stop if terminal else read_again)


def _end(number: int, frame: FrameType | None) -> None:
    """End this process at once, with the status that a shell gives one that a signal has ended."""
    os._exit(128 + number)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, whose end it would be told."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
