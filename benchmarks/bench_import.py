"""What `import retina_ops` takes beyond torch's own import, in fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys

SCRIPT = "import time, torch; start = time.perf_counter(); import retina_ops; print(time.perf_counter() - start)"


def bench_import(benchmark) -> None:
    seconds: list[float] = []

    def fresh_process() -> None:
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))

    benchmark.group = "import retina_ops, process start and torch included"
    benchmark.pedantic(fresh_process, rounds=5, warmup_rounds=1)
    benchmark.extra_info["import_beyond_torch_milliseconds"] = 1000 * statistics.median(seconds)
    assert min(seconds) > 0
