"""What a data worker does when the signal that stops a run reaches it, too."""

import os
import signal
import threading

__all__ = ["outlive_sigterm"]


def outlive_sigterm(worker_id=0):
    """``worker_init_fn`` of a loader: SIGTERM ends the worker only if its parent sends it.

    Schedulers send it to all processes of a job. A worker that obeys takes the step with it that training is to end,
    and so the checkpoint. One whose parent is gone is ended by torch. On macOS, where a signal does not tell who sent
    it, nothing changes.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # torch's handler would end the worker
    threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent):
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)
