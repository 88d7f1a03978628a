"""Your own images: check a folder to train on, and one to score.  See folder.md."""

import argparse
import sys

from pnilib.data import check_dataset, load_dataset
from pnilib.errors import PNIError


def main() -> None:
    """Print the counts, and a line for every defect."""
    parser = argparse.ArgumentParser(description="Check a folder of your own images: see folder.md")
    parser.add_argument("--root", required=True, help="folder of normal images")
    parser.add_argument("--test-root", help="folder of images to score")
    parser.add_argument("--normal", help="which folders in them are normal, as good,good_2")
    args = parser.parse_args()
    try:
        dataset = load_dataset("folder", args.root, test_root=args.test_root, normal=args.normal)
        findings = check_dataset(dataset)
    except PNIError as fault:
        sys.exit(f"error: {fault}")
    print(f"{dataset.summary()}; findings: {len(findings)}")
    for line in [*findings, *dataset.notes]:
        print(f"  {line}")


if __name__ == "__main__":
    main()
