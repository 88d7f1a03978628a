"""The demo data: drawn on this machine, nothing downloaded; then checked.  See demo.md."""

import argparse
import sys

from common import report

from pnilib.demo import make_demo
from pnilib.errors import PNIError


def main() -> None:
    """Draw what is missing, check everything."""
    parser = argparse.ArgumentParser(description="Draw and check the demo data: see demo.md")
    parser.add_argument("--root", default="data/demo", help="folder of the data set (default: %(default)s)")
    parser.add_argument("--size", type=int, default=256, help="side of the images in px (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures (default: %(default)s)")
    args = parser.parse_args()
    try:
        make_demo(args.root, size=args.size, seed=args.seed)
        report("demo", args.root)
    except PNIError as fault:
        sys.exit(f"error: {fault}")


if __name__ == "__main__":
    main()
