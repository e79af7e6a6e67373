"""What a data worker does when the signal that stops a run reaches it, too."""

import signal

__all__ = ["outlive_sigterm"]

SECONDS = 20


def outlive_sigterm(worker_id=0):
    """``worker_init_fn`` of a loader: SIGTERM ends the worker after 20 seconds only.

    Schedulers send it to all processes of a job. A worker that dies at once takes the step with it that training is to
    end, and so the checkpoint; one that is left behind ends by itself.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(SECONDS))
