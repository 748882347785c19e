"""moto's server as it is, but for its clock: for each message that is sent it asks every message of the queue whether
it is visible, and its own way of reading the time makes that ten times slower than it need be.

To be run with `python -P`: a file of this folder has moto's name.
"""

import time
from typing import Any

import moto.sqs.models
from moto.server import main

models: Any = moto.sqs.models
models.unix_time_millis = lambda: time.time() * 1000

if __name__ == "__main__":
    main()
