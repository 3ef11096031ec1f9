"""`deploy/check`: every manifest by its own tool, every image built, started and asked."""

import sys
import time

import images
import manifests
from steps import Failed

PARTS = {"manifests": manifests.check, "images": images.check}


def main() -> int:
    """Run the parts that the arguments name; all by default."""
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := [name for name in chosen if name not in PARTS]:
        print(f"deploy/check: no part is called {unknown[0]!r}; known: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        for name in chosen:
            PARTS[name]()
    except Failed as error:
        print(f"FAILED: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"all holds: {', '.join(chosen)} in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
