"""A program that prints what it finds itself in, and ends as its argument says: a number, or `never`."""

import json
import multiprocessing
import os
import signal
import sys
import tempfile

if __name__ == "__main__":
    found = {
        "arguments": sys.argv,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "temporary": tempfile.gettempdir(),
        "leads": (os.getsid(0), os.getpgid(0)) == (os.getpid(), os.getpid()),
        "open files": len(os.listdir("/proc/self/fd")),
        "decided": "prometheus_client" in sys.modules,
        "children": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    }
    print(json.dumps([found, multiprocessing.current_process().authkey.hex()]), flush=True)
    while sys.argv[1] == "never":
        signal.pause()
    sys.exit(int(sys.argv[1]))
