"""Prove that one package imports alone: cheaply, and without the heavy libraries.

Run by ``.ci/run`` in an environment that holds nothing but the package's own dependencies:
``python tests/alone.py tidemill_loader``. Exits with 1 and says why if it does not hold.
"""

import importlib
import resource
import subprocess
import sys

HEAVY = ("dagster", "polars", "pyarrow", "confluent_kafka", "grpc")
LIMIT_CPU_S = 0.3


def main(package: str) -> int:
    """Import `package` in fresh interpreters; compare the CPU time of importing it with that of importing nothing."""
    importlib.import_module(package)
    heavy = [name for name in HEAVY if name in sys.modules]
    if heavy:
        print(f"import {package} also imports {', '.join(heavy)}")
        return 1
    nothing, whole = (min(_cpu_s(code) for _ in range(3)) for code in ("pass", f"import {package}"))
    print(f"import {package}: {whole - nothing:.2f} s of CPU")
    return 0 if whole - nothing < LIMIT_CPU_S else 1


def _cpu_s(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
