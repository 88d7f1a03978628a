"""What every script of this folder does: fetch or find the data set, then check every category."""

import argparse
import sys

from pnilib.data import check_dataset, list_categories, load_dataset, prepare_dataset
from pnilib.errors import PNIError


def prepare_and_check(name: str) -> None:
    """Parse the command line, make the data exist, print what is wrong with them."""
    parser = argparse.ArgumentParser(description=f"Prepare and check the data set {name}: see {name}.md")
    parser.add_argument("--root", default=f"data/{name}", help="folder of the data set (default: %(default)s)")
    parser.add_argument("--archive", help="an archive downloaded by hand")
    parser.add_argument("--url", help="another link than the one in pnilib.data.SOURCES")
    parser.add_argument("--sha256", help="the archive must have this checksum")
    parser.add_argument("--no-check", action="store_true", help="do not decode every image")
    args = parser.parse_args()
    try:
        prepare_dataset(name, args.root, archive=args.archive, url=args.url, sha256=args.sha256)
        if not args.no_check:
            report(name, args.root)
    except PNIError as fault:
        sys.exit(f"error: {fault}")


def report(name: str, root: str) -> None:
    """One line a category, one line a finding."""
    for category in list_categories(name, root):
        dataset = load_dataset(name, root, category)
        findings = check_dataset(dataset)
        print(f"{name}/{category}: {dataset.summary()}; findings: {len(findings)}")
        for line in [*findings, *dataset.notes]:
            print(f"  {line}")
